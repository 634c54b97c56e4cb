"""docs/sizing.md, made of the calculator: `python scripts/sizing.py` writes it, a test compares."""

from collections.abc import Sequence
from dataclasses import asdict

from rlhf_online.sizing.demand import DEMANDS, Demand
from rlhf_online.sizing.factors import FACTORS, GPUS, SETTINGS
from rlhf_online.sizing.reckoning import limits, needs, shown

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)


def document(sizes: Sequence[int] = SIZES) -> str:
    """docs/sizing.md."""
    columns = [needs(Demand(people=people)) for people in sizes]
    names = list(
        dict.fromkeys((need.name, need.unit) for column in columns for need in column if need.unit != "no Kafka needed")
    )
    lines = [*_HEAD.splitlines(), "", "| | unit | " + " | ".join(f"{people:,}" for people in sizes) + " |"]
    lines.append("| --- | --- |" + " ---: |" * len(sizes))
    for name, unit in names:
        cells = [next((shown(n.value) for n in column if (n.name, n.unit) == (name, unit)), "") for column in columns]
        lines.append(f"| {name} | {unit} | " + " | ".join(cells) + " |")
    said = {people: limits(Demand(people=people)) for people in sizes}
    lines += ["", *(f"- {people:,} people: {line}." for people, found in said.items() for line in found)]
    lines += ["", "## Worked through: 10,000 people", "", "| | | how |", "| --- | ---: | --- |"]
    lines += [f"| {n.name} | {shown(n.value)} {n.unit} | {n.how} |" for n in needs(Demand(people=10_000))]
    lines += ["", "## What is asked", "", "| option | default | what it is |", "| --- | ---: | --- |"]
    default = asdict(Demand())
    lines += [f"| `--{name.replace('_', '-')}` | {default[name]} | {what} |" for name, what in DEMANDS.items()]
    for title, table in (("Factors", FACTORS), ("Settings", SETTINGS)):
        lines += ["", f"## {title}", "", "| | | from |", "| --- | ---: | --- |"]
        lines += [f"| {f.unit} | {shown(f.value)} | {_source(f.source)} |" for f in table.values()]
    lines += [
        "",
        "| GPU | memory, GB | TB/s | bfloat16, TFLOP/s |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [f"| {name} | {g.memory:g} | {g.bandwidth:g} | {g.bfloat16:g} |" for name, g in GPUS.items()]
    return "\n".join(lines) + "\n"


def _source(source: str) -> str:
    return (
        source.replace("bench ", "`make bench BENCH=") + "`"
        if source.startswith("bench ") and ":" not in source
        else source
    )


_HEAD = """\
# Sizing

Made by `python scripts/sizing.py` from the calculator behind `rlhf-online size` (`rlhf_online/sizing/`); a test
compares them. `rlhf-online size --people 50000 --weights-billion 3 --gpu l40s` reckons your case, `--json` for
programs. What comes of it is a first guess to buy and to configure by, as good as its factors. Three of them decide
most, and only you can know them: messages a person, votes a message, and how many tokens a second your engine writes at
the latency that you want (`--engine-tokens-s`; measure it with vLLM's own `vllm bench serve`). Of what is reckoned for
GPUs the trainer's share of their peak was measured, on one H200; the rest comes from data sheets and publications. The
trainer computes in bfloat16 over float32 weights; how much memory a model of yours takes there is reckoned from its
tensors by `rlhf-online doctor MODEL --plan`.

Below: an adapter on a model of 8 billion weights, H200s, a version every two hours, else the default settings."""
