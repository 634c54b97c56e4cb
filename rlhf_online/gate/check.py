"""What a check is given, and what it says. Neither torch nor I/O, so that settings may be read anywhere."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rlhf_online.config import Section
from rlhf_online.gate.golden_prompts import GoldenPrompt
from rlhf_online.gate.readiness import CHANCE, reward_model_blocks

Tokens = tuple[int, ...]
EXAMPLES = 3
"""Prompts that a finding names at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSet:
    """One version's answers to the gate's prompts, in the prompts' order.

    `texts` are decoded without special tokens; `lengths` count tokens, the end of sequence included. `scores` and
    `spreads` are by the reward model that the policy learns from, `scores` as the policy sees them (pessimistic), both
    NaN where there is no number. `logprobs` is the mean log-probability of an answer's tokens, nats a token, under the
    version that wrote them and the distribution that they were sampled from; NaN of an answer without a token.
    `held_back` and `held_back_spreads` are scores and spreads by the held-back reward model; none where there is none.
    `finished` says of each that it ended by itself, and was not cut.
    """

    token_ids: Sequence[Tokens]
    texts: Sequence[str]
    scores: Sequence[float]
    spreads: Sequence[float]
    logprobs: Sequence[float]
    finished: Sequence[bool]
    held_back: Sequence[float] = ()
    held_back_spreads: Sequence[float] = ()

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.token_ids]


UNKNOWN = 0.0, math.inf


@dataclass(frozen=True, slots=True)
class TraitEffect:
    """What a trait is worth: by `n` answers with it and without, the mean change of the score and half the width of its
    95 % interval, in standard deviations of the live answers' scores; by both reward models."""

    n: int
    change: tuple[float, float] = UNKNOWN
    held_back: tuple[float, float] = UNKNOWN

    def figures(self) -> dict[str, float]:
        told = {"effect": self.change, "held_back_effect": self.held_back}
        return {what: change for what, (change, half) in told.items() if math.isfinite(half)}


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenAnswer:
    """Both versions' nearly greedy answers to a golden prompt; `live` is None where the live version gave none."""

    prompt: GoldenPrompt
    candidate: str
    live: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Answers of the candidate and of the live version to the same prompts.

    `prompt_texts` are the prompts decoded, their template's words included. `kl` is the candidate's KL to the
    reference, nats an answer. `reward_model` holds the figures of the reward model that the candidate learned from, on
    votes that were held out: accuracy, accuracy_low, accuracy_high, accuracy_n, ece, ece_low, ece_high, thumb_auc, …;
    `held_back_model` those of the held-back one on the same votes, {} where there is none.
    `origins` say whose conversation each prompt stems from (`events.origin`), and `people` whose, "" where nobody can
    erase it; `traits` what each is worth, by name; `golden` the answers to the operator's golden prompts.
    """

    prompts: Sequence[Tokens]
    prompt_texts: Sequence[str]
    candidate: AnswerSet
    live: AnswerSet
    kl: float
    reward_model: Mapping[str, float]
    held_back_model: Mapping[str, float] = field(default_factory=dict)
    origins: Sequence[str] = ()
    people: Sequence[str] = ()
    traits: Mapping[str, TraitEffect] = field(default_factory=dict)
    golden: Sequence[GoldenAnswer] = ()

    @property
    def usable(self) -> list[int]:
        """The prompts (indices) where both answers have finite scores, by the held-back model too if there is one."""
        sets = (self.candidate, self.live)
        columns = [scores for answers in sets for scores in (answers.scores, answers.held_back) if scores]
        return [row for row in range(len(self.prompts)) if all(math.isfinite(scores[row]) for scores in columns)]

    @property
    def held_back_knows(self) -> bool:
        """Whether the held-back model orders held-out votes better than chance, by its 95 % interval."""
        return bool(self.held_back_model) and not reward_model_blocks(self.held_back_model, CHANCE, "the gate")

    def score_pairs(self) -> list[tuple[float, float]]:
        """(candidate's, live version's) score of each prompt where both are finite."""
        return [(self.candidate.scores[row], self.live.scores[row]) for row in self.usable]

    def worst(self, badness: Callable[[int], float]) -> tuple[int, ...]:
        """The prompts (indices) with the highest `badness`, EXAMPLES at most, worst first; none where it is NaN."""
        known = [index for index in range(len(self.prompts)) if not math.isnan(badness(index))]
        return tuple(sorted(known, key=lambda index: -badness(index))[:EXAMPLES])


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`figures` is what was measured; `objections` says why the candidate may not serve, () if it may. `examples` are
    prompts (indices) whose answers show it best, EXAMPLES at most, worst first. `notes` and `rows`, a table, are for
    people who read the report."""

    figures: dict[str, float]
    objections: tuple[str, ...] = ()
    examples: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    rows: tuple[Mapping[str, str | float], ...] = ()


class Check(Section, ABC):
    """A check is its settings, and what they decide of the evidence."""

    @abstractmethod
    def examine(self, evidence: Evidence) -> Finding:
        """`evidence` has one pair of finite scores or more."""
