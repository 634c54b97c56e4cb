"""Feedback that its own person replaced or took back, in whatever order the two come. Pure.

What was replaced and is still to come must be known when it comes; so must what took its place, since a second
replacement of the same feedback takes the place of the first.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self


class Revisions:
    """The latest `capacity` replacements. Somebody else's feedback cannot be replaced: that is ignored."""

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._by: OrderedDict[tuple[str, str], str] = OrderedDict()

    def replace(self, event_id: str, person: str, replaces: str) -> list[str]:
        """The person's feedback `event_id` takes the place of `replaces`; returns what counts no more because of it."""
        before = self._by.pop((replaces, person), event_id)
        self._by[replaces, person] = event_id
        if len(self._by) > self._capacity:
            self._by.popitem(last=False)
        return [replaces] if before == event_id else [replaces, before]

    def by(self, event_id: str, person: str) -> str:
        """What has taken the place of the person's feedback `event_id`; "" if it counts."""
        return self._by.get((event_id, person), "")

    def to_json(self) -> list[list[str]]:
        return [[replaces, person, event_id] for (replaces, person), event_id in self._by.items()]

    @classmethod
    def from_json(cls, values: Sequence[Sequence[Any]]) -> Self:
        revisions = cls()
        revisions._by = OrderedDict(((replaces, person), event_id) for replaces, person, event_id in values)
        return revisions
