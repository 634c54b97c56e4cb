"""The settings `[canary]` of the trainer, which decides about canaries."""

from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from rlhf_online.config import Only, Positive, Section


def _ascending(steps: tuple[float, ...]) -> tuple[float, ...]:
    if any(not 0 < share <= 1 for share in steps):
        raise ValueError("expected shares above 0, of which nobody would get the candidate, and at most 1, everybody")
    if any(later <= sooner for sooner, later in pairwise(steps)):
        raise ValueError("expected each share to be larger than the one before")
    return steps


class Guardrails(Section):
    """Each is a share of the canary's that is shown to be too large: then it is taken back."""

    aborted: float = Field(
        default=0.2, gt=0, lt=1, description="Most of its answers that may end unfinished: the engine, or the person."
    )
    empty: float = Field(default=0.02, gt=0, lt=1, description="Most of its answers that may hold nothing.")
    slow: float = Field(default=0.1, gt=0, lt=1, description="Most of its answers that may take longer than slow_s.")
    slow_s: float = Field(default=60.0, gt=0, description="Seconds for an answer, from the request to its end.")
    thumbs_down: float = Field(default=0.6, gt=0, lt=1, description="Most thumbs on its answers that may be down.")


class CanarySettings(Section):
    only_with: ClassVar = dict.fromkeys(
        ("alpha", "look", "min_answers", "max_people", "max_hours", "guardrails"), Only("steps", "?*")
    )

    steps: Annotated[tuple[float, ...], AfterValidator(_ascending)] = Field(
        default=(),
        description="Shares of the conversations that a version which passed the gate answers before people have "
        "spoken, [0.01, 0.1, 0.5]; empty: it is live at once.",
    )
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Most of the canaries that are no better which may be promoted, however often one looks.",
    )
    look: Positive = Field(
        default=10, description="Votes after which people are counted, each once; in a canary of few people set more."
    )
    min_answers: Positive = Field(default=100, description="Answers of the canary at each step before the next one.")
    max_people: Positive = Field(
        default=2000, description="People after whom a canary that is not shown to be better ends."
    )
    max_hours: float = Field(
        default=168.0, gt=0, description="Hours after which a canary that is not shown to be better ends."
    )
    guardrails: Guardrails = Guardrails()

    @property
    def enabled(self) -> bool:
        return bool(self.steps)
