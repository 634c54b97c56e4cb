"""A critic's TOML file: a judge's, and how good it must be before annotators see what it says."""

from pydantic import Field

from rlhf_online.rewards.judge.settings import JudgeSettings


class CriticSettings(JudgeSettings):
    """Who is asked, by what, and how good it must have been on planted faults."""

    least_recall: float = Field(
        default=0.3, ge=0, lt=1, description="Share of planted faults that it must surely (95 %) have found."
    )
    least_precision: float = Field(
        default=0.5, ge=0, lt=1, description="Share of its notes that must surely (95 %) have been on such a fault."
    )
