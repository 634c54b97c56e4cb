"""What a check is given, and what it says. Neither torch nor I/O, so that settings may be read anywhere."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_online.config import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSet:
    """One version's answers to the gate's prompts: scores, and lengths in tokens, in the prompts' order."""

    scores: Sequence[float]
    lengths: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Answers of the candidate and of the live version to the same prompts; `kl` is the candidate's KL to the
    reference, nats an answer."""

    candidate: AnswerSet
    live: AnswerSet
    kl: float

    def score_pairs(self) -> list[tuple[float, float]]:
        """(candidate's, live version's) score of each prompt where both are finite."""
        return [
            (ours, theirs)
            for ours, theirs in zip(self.candidate.scores, self.live.scores, strict=True)
            if math.isfinite(ours + theirs)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`figures` is what was measured; `objections` says why the candidate may not serve, () if it may."""

    figures: dict[str, float]
    objections: tuple[str, ...] = ()


class Check(Section, ABC):
    """A check is its settings, and what they decide of the evidence."""

    @abstractmethod
    def examine(self, evidence: Evidence) -> Finding:
        """`evidence` has one pair of finite scores or more."""
