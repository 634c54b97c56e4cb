"""Learning from a file or a log without serving: `votes` reads them as the trainer does, `reward`, `policy` and
`ilql` learn.

`python -m rlhf_online.training.offline JSON` runs it as a process of its own.
"""
