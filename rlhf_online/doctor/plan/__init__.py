"""How much memory trainer and reward service need for a model: arithmetic over its headers and the settings.

    shape       the model's sizes
    reckoning   what each rank holds at which moment
    report      whether that fits, and what would; tables

Nothing is loaded, no torch.
"""

from rlhf_online.doctor.plan.reckoning import ALONE, Choice, Place, Plan, Ranks, choices, chosen, needed, plan, scorer
from rlhf_online.doctor.plan.report import GIB, by_rank, fits, memory, rows, table
from rlhf_online.doctor.plan.shape import Shape

__all__ = [
    "ALONE",
    "GIB",
    "Choice",
    "Place",
    "Plan",
    "Ranks",
    "Shape",
    "by_rank",
    "choices",
    "chosen",
    "fits",
    "memory",
    "needed",
    "plan",
    "rows",
    "scorer",
    "table",
]
