"""Supervised fine-tuning, the stage before anybody votes: `demonstrations` are read, and `fine_tuning` learns them.

`python -m rlhf_online.training.sft JSON` runs it as a process of its own. No torch is imported before the data is good.
"""
