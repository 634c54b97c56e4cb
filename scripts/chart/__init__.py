"""What operators may say to the Helm chart, once: from it come values.yaml, values.schema.json and the README's tables.

`python -m scripts.chart` writes the three files into helm/rlhf-online; `--check` says whether they are up to date.
"""
