"""Answers for the policy update, with the log-probs of the policy that gave them, and the bound on their age.

The age of a rollout, its staleness, is the number of policy versions that were promoted after the one that wrote it,
up to the live one. docs/results.md says what staleness costs; beyond the bound a rollout is dropped and counted.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rlhf_online.events import Erasure
from rlhf_online.keystore.owned import is_shredded
from rlhf_online.rollout.eligibility import drop_stale
from rlhf_online.rollout.types import Rollout


class RolloutBuffer:
    """Live answers that wait for a policy update: at most `capacity`, none more than `max_staleness` versions old."""

    def __init__(self, capacity: int, max_staleness: int) -> None:
        self._rollouts: deque[Rollout] = deque()
        self._capacity = capacity
        self._max_staleness = max_staleness
        self.left_out = Counter(stale=0, full=0)
        """Answers dropped, by reason (`eligibility`)."""

    def __len__(self) -> int:
        return len(self._rollouts)

    def add(self, rollouts: Iterable[Rollout]) -> None:
        """Append; beyond the capacity the oldest go."""
        for rollout in rollouts:
            if len(self._rollouts) == self._capacity:
                self._rollouts.popleft()
                self.left_out["full"] += 1
            self._rollouts.append(rollout)

    def erase(self, erasure: Erasure) -> None:
        """Let go of what stems from that conversation, or from all of that person's."""

        def erased(rollout: Rollout) -> bool:
            return rollout.person == erasure.person if erasure.whole else rollout.origin == erasure.origin

        kept = deque(rollout for rollout in self._rollouts if not erased(rollout))
        if gone := len(self._rollouts) - len(kept):
            self.left_out["erased"] += gone
        self._rollouts = kept

    def take(self, count: int, lineage: Sequence[str], claim: Callable[[str], bool]) -> list[Rollout]:
        """Remove and return up to `count` rollouts, newest first; drop those that are too old.

        `lineage`: the versions that led to the live one, oldest first, the live one last; what versions of other kinds
        wrote (`versions.manifest`) stays.
        `claim(rollout_id)` says whether this rollout is used for the first time; others are passed over.
        """
        kinds = set(map(_kind, lineage))
        others = [rollout for rollout in self._rollouts if kinds and _kind(rollout.policy_version) not in kinds]
        recent = self.drop_stale(self._without(others), lineage)
        taken: list[Rollout] = []
        while recent and len(taken) < count:
            rollout = recent.pop()
            if claim(rollout.rollout_id):
                taken.append(rollout)
        gone = self._without([*others, *recent])
        self._rollouts = deque(self._without(gone))
        return taken

    def _without(self, some: Iterable[Rollout]) -> list[Rollout]:
        known = set(map(id, some))
        return [rollout for rollout in self._rollouts if id(rollout) not in known]

    def drop_stale(self, rollouts: Iterable[Rollout], lineage: Sequence[str]) -> list[Rollout]:
        """Those that are not too old, of the buffer or fresh; the others are counted."""
        kept, left_out = drop_stale(rollouts, lineage, self._max_staleness)
        self.left_out.update(left_out)
        return kept

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {
            "rollouts": [
                asdict(rollout) | {"owners": [rollout.person] if rollout.person else []} for rollout in self._rollouts
            ],
            "left_out": self.left_out,
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Become the buffer that `to_json` described."""
        kept = [item for item in values["rollouts"] if not is_shredded(item)]
        self._rollouts = deque(Rollout.from_json(item) for item in kept)
        self.left_out = Counter(values["left_out"])
        if gone := len(values["rollouts"]) - len(kept):
            self.left_out["erased"] += gone


def _kind(version: str) -> str:
    """Of "policy.brief-000003" it is "policy.brief": an audience's versions are a line of their own."""
    return version.rpartition("-")[0]
