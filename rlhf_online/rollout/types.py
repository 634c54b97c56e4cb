"""The answers that a policy update learns from, and their groups by prompt."""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One answer, sampled from the full support.

    `logprobs[i]` is log p(token i) under the distribution sampled from, temperature applied. `policy_version` is the
    oldest version that wrote any of its tokens. `finished` says that it ended by itself (its last token is an end).
    """

    rollout_id: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    policy_version: str
    temperature: float
    finished: bool
    origin: str = ""
    """Whose conversation it stems from (`events.origin`); "" where nobody can erase it."""
    person: str = ""
    """Who got it; "" for one that nobody got, or nobody's name stands under."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Rollout":
        """The rollout that `dataclasses.asdict` turned into `values`, which may name its "owners" besides."""
        sequences = {name: tuple(values[name]) for name in ("prompt_token_ids", "token_ids", "logprobs")}
        return cls(**{**{name: value for name, value in values.items() if name != "owners"}, **sequences})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRollout:
    """A rollout and its score (normalised, higher is better) by one reward version."""

    rollout: Rollout
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledAnswer:
    """An answer that a person called good or bad, by the vote of that event id."""

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    desirable: bool
    event_id: str = ""


def groups(prompts: Iterable[Hashable]) -> list[list[int]]:
    """Rows of the same prompt, in the order in which the prompts first come."""
    found: defaultdict[Hashable, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        found[prompt].append(row)
    return list(found.values())
