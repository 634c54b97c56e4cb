"""What a cycle's trace and those of its votes say of each other.

The cycle is a trace of its own, linked to the votes that it took, MAX_LINKS of them at most. Each of these gets two
spans in its own trace, both linked to the cycle: `learn`, until the reward model that learned from it is committed, and
`publish`, until what the cycle brought is known, its version live at best. A cycle that is cut short by a kill goes on
in its trace, whose name is committed with it; `publish` is then told of it alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rlhf_online import tracing


class VoteTraces:
    """Of the cycle that is under way. Use from one thread."""

    def __init__(self) -> None:
        self._cycle = tracing.NOTHING
        self._votes: Sequence[str] = ()
        self._since_ns = 0

    @contextmanager
    def cycle(self, cut_short: str) -> Iterator[None]:
        """A cycle, or what is left of the one that has this `traceparent`."""
        self._votes = ()
        with tracing.span("cycle", parent=cut_short) as self._cycle:
            yield

    def took(self, votes: Sequence[str]) -> str:
        """The cycle learns from votes, of which these `traceparent`s are traced; returns its own."""
        self._votes, self._since_ns = votes, tracing.now_ns()
        self._cycle.link(votes)
        return self._cycle.traceparent

    def learned(self, reward_version: str) -> None:
        """What was learned is committed under that name."""
        self._tell("learn", {"rlhf.reward_version": reward_version})

    def ended(self, outcome: str, policy_version: str) -> None:
        """The cycle ended, with a policy version or with ""."""
        found = {"rlhf.outcome": outcome} | ({"rlhf.policy_version": policy_version} if policy_version else {})
        self._cycle.note(found)
        self._tell("publish", found)
        self._votes = ()

    def _tell(self, name: str, attributes: tracing.Attributes) -> None:
        cycle = [self._cycle.traceparent] if self._cycle.recorded else []
        for vote in self._votes:
            span = tracing.start(name, attributes, kind="consumer", parent=vote, links=cycle, began_ns=self._since_ns)
            span.end()
        self._since_ns = tracing.now_ns()
