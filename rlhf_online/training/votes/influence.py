"""Influence caps: how much of an update one person, one API key or one day may be. Pure.

A group (all votes of a person, of a key, of a day) that is more than its share of an update's votes weighs as much as
its share, each of its votes alike. New and replayed votes count together, so that neither a burst nor a long habit of
voting makes one person's taste everybody's. A share holds once there are enough groups for it: of three people one is a
third whatever is done.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from rlhf_online.feedback.votes import Vote
from rlhf_online.training.settings import InfluenceCaps

DAY_MS = 86_400_000


def level(counts: Sequence[int], share: float) -> float:
    """The c with which no min(count, c) is more than `share` of Σ min(count, c); infinite where no count is, or where
    there are fewer than 1/share of them."""
    if share * len(counts) < 1:
        return math.inf
    largest = sorted(counts, reverse=True)
    for capped, count in enumerate(largest):
        # With `capped` counts at c, c = share · (the rest + capped · c).
        c = share * sum(largest[capped:]) / (1 - share * capped)
        if count <= c * (1 + 1e-9):
            return c if capped else math.inf
    raise AssertionError(f"no level for {counts} and {share}")


def weights(votes: Sequence[Vote], caps: InfluenceCaps) -> dict[str, float]:
    """What each vote weighs that weighs less than 1, by its event id: the least of its three caps.

    Votes of no person's have a weight of their own; votes without a name, key or time are of no group.
    """
    found: dict[str, float] = {}
    given = [vote for vote in votes if not vote.by_ai]
    groups = (
        (caps.person, [vote.person for vote in given]),
        (caps.key, [vote.key_id for vote in given]),
        (caps.day, [str(vote.created_ms // DAY_MS) if vote.created_ms else "" for vote in given]),
    )
    for share, names in groups:
        counts = Counter(filter(None, names))
        cap = level(list(counts.values()), share)
        for vote, name in zip(given, names, strict=True):
            if counts[name] > cap:
                found[vote.event_id] = min(found.get(vote.event_id, 1.0), cap / counts[name])
    return found


def mean(votes: Sequence[Vote], weights: Mapping[str, float]) -> float:
    """What they weigh on average, 1 where there are none."""
    return sum(weights.get(vote.event_id, 1.0) for vote in votes) / len(votes) if votes else 1.0
