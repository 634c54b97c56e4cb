"""What the console knows, as metrics: votes that wait, and the versions by what they are."""

from collections import Counter
from collections.abc import Iterable
from itertools import product

from rlhf_online.events import now_ms
from rlhf_online.metrics import ChatMetrics
from rlhf_online.metrics.labels import KIND, STATE
from rlhf_online.versions.manifest import Kind, audience_of
from rlhf_online.versions.summary import VersionSummary
from services.chat.console.replies import VoteFlow


class Gauges:
    """Of one service."""

    def __init__(self, metrics: ChatMetrics) -> None:
        self._votes = metrics.votes
        self._versions = metrics.serving.versions

    def tell(self, votes: VoteFlow, versions: Iterable[VersionSummary]) -> None:
        """Whenever it was looked at."""
        self._votes.waiting.set(votes["backlog"])
        oldest_ms = votes["oldest_waiting_ms"]
        self._votes.oldest.set(max(0, now_ms() - oldest_ms) / 1000 if oldest_ms else 0.0)
        counts: Counter[tuple[str, str]] = Counter((label_of(found.kind), found.status.state) for found in versions)
        for kind_and_state in product(KIND.values, STATE.values):
            self._versions.labels(*kind_and_state).set(counts[kind_and_state])


def label_of(kind: Kind) -> str:
    """What it counts as: audiences are any number, and labels are not."""
    return "audience" if audience_of(kind) else kind
