"""Answers for the policy update, with the log-probs of the policy that gave them, and the bound on their age.

The age of a rollout, its staleness, is the number of policy versions that were promoted after the one that wrote it,
up to the live one. RECIPE.md has what staleness costs; beyond the bound a rollout is dropped and counted.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRollout:
    """A rollout and its score (normalised, higher is better) by one reward version."""

    rollout: Rollout
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledAnswer:
    """An answer that a person called good or bad."""

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    desirable: bool


class RolloutBuffer:
    """Live answers that wait for a policy update: at most `capacity`, none more than `max_staleness` versions old."""

    def __init__(self, capacity: int, max_staleness: int) -> None:
        self._rollouts: deque[Rollout] = deque()
        self._capacity = capacity
        self._max_staleness = max_staleness
        self.dropped_stale = 0
        """Dropped as too old, or written by a version that is not in the lineage (it failed)."""
        self.dropped_full = 0
        """Dropped since newer ones came and the buffer was full."""

    def __len__(self) -> int:
        return len(self._rollouts)

    def add(self, rollouts: Iterable[Rollout]) -> None:
        """Append; beyond the capacity the oldest go."""
        for rollout in rollouts:
            if len(self._rollouts) == self._capacity:
                self._rollouts.popleft()
                self.dropped_full += 1
            self._rollouts.append(rollout)

    def take(self, count: int, lineage: Sequence[str], claim: Callable[[str], bool]) -> list[Rollout]:
        """Remove and return up to `count` rollouts, newest first; drop those that are too old.

        `lineage`: the policy versions that led to the live one, oldest first, the live one last.
        `claim(rollout_id)` says whether this rollout is used for the first time; others are passed over.
        """
        recent = frozenset(lineage[-1 - self._max_staleness :])
        young = [rollout for rollout in self._rollouts if rollout.policy_version in recent]
        self.dropped_stale += len(self._rollouts) - len(young)
        taken: list[Rollout] = []
        while young and len(taken) < count:
            rollout = young.pop()
            if claim(rollout.rollout_id):
                taken.append(rollout)
        self._rollouts = deque(young)
        return taken

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {
            "rollouts": [asdict(rollout) for rollout in self._rollouts],
            "dropped_stale": self.dropped_stale,
            "dropped_full": self.dropped_full,
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Become the buffer that `to_json` described."""
        self._rollouts = deque(rollout_from_json(item) for item in values["rollouts"])
        self.dropped_stale, self.dropped_full = values["dropped_stale"], values["dropped_full"]


def rollout_from_json(values: dict[str, Any]) -> Rollout:
    """The rollout that `dataclasses.asdict` turned into `values`."""
    sequences = {name: tuple(values[name]) for name in ("prompt_token_ids", "token_ids", "logprobs")}
    return Rollout(**{**values, **sequences})
