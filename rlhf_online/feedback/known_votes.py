"""Whose the newest votes are, and what they said: what tells a vote sent again from another one under its name. Pure.

A vote's event id is made of its person and idempotency key. The same id with another content is a key used twice; a
vote that replaces an id of another person's is a stranger's. Both the chat service and the intake of the training ask
here: the one knows what it took itself, the other knows the log.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

from rlhf_online.events import Envelope, Feedback
from rlhf_online.wire import encode

CAPACITY = 50_000


class KnownVotes:
    """The newest `capacity` votes; the oldest are forgotten first."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._votes: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def add(self, event_id: str, vote: Feedback) -> None:
        """Take in a vote; one that is known stays what it is."""
        self._votes.setdefault(event_id, (vote.person, content(vote)))
        if len(self._votes) > self._capacity:
            self._votes.popitem(last=False)

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._votes

    def is_another(self, event_id: str, vote: Feedback) -> bool:
        """True if the vote known by that id said something else."""
        known = self._votes.get(event_id)
        return known is not None and known[1] != content(vote)

    def is_somebody_elses(self, event_id: str, person: str) -> bool:
        """True if the vote of that id is known, and not this person's."""
        known = self._votes.get(event_id)
        return known is not None and known[0] != person

    def to_json(self) -> list[list[str]]:
        return [[event_id, person, said] for event_id, (person, said) in self._votes.items()]

    @classmethod
    def from_json(cls, values: Sequence[Sequence[Any]]) -> Self:
        known = cls()
        known._votes.update((event_id, (person, said)) for event_id, person, said in values)
        return known


def content(vote: Feedback) -> str:
    """A digest of what is said, without the circumstances (when, where, how fast), in which a retry may differ."""
    said = Feedback(
        conversation_id="",
        person="",
        kind=vote.kind,
        reason=vote.reason,
        replaces=vote.replaces,
        objective=vote.objective,
        reasons=vote.reasons,
    )
    return hashlib.blake2b(encode(Envelope(event_id="", event=said)), digest_size=8).hexdigest()
