"""Conversations that their person erased: what was asked in them until then is not learned from any more. Pure.

A person may erase all that is theirs, their votes on other people's answers included.

An erasure may be read before the answers that it covers (Kafka orders events of one topic alone), and an answer that
was being written is logged after it. So erasures are remembered, and cover what was asked no later than they.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

from rlhf_online.events import Completion, Erasure, Feedback, origin
from rlhf_online.feedback.votes import Vote

CAPACITY = 100_000


class Erasures:
    """The newest `capacity` conversations that were erased; the oldest are forgotten first."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._until: OrderedDict[str, int] = OrderedDict()
        """Origin → when it was erased last, ms."""
        self._new: list[Erasure] = []

    def add(self, erasure: Erasure) -> None:
        self._until[erasure.origin] = max(erasure.erased_ms, self._until.pop(erasure.origin, 0))
        if len(self._until) > self._capacity:
            self._until.popitem(last=False)
        self._new.append(erasure)

    @property
    def new(self) -> list[str]:
        """The origins of those that `take_new` will give."""
        return [erasure.origin for erasure in self._new]

    @property
    def new_people(self) -> set[str]:
        """Who erased everything, of those that `take_new` will give."""
        return {erasure.person for erasure in self._new if erasure.whole}

    def take_new(self) -> list[Erasure]:
        """Those that came since they were taken last: what was learned from is let go of by them."""
        new, self._new = self._new, []
        return new

    def cover(self, completion: Completion) -> bool:
        """True if the exchange was asked in a conversation that was erased later, or by who erased everything later."""
        return self._until_ms(completion.origin, completion.person) >= completion.started_ms

    def cover_vote(self, vote: Feedback) -> bool:
        """True if the vote was given by who erased everything later."""
        return self._until_ms("", vote.person) >= vote.created_ms

    def _until_ms(self, stems: str, person: str) -> float:
        """When a conversation, or all that is the person's, was erased last; before all times if never."""
        if not person:
            return -math.inf
        return max(self._until.get(stems, -math.inf), self._until.get(origin("", person), -math.inf))

    def to_json(self) -> dict[str, Any]:
        return {"until": list(self._until.items()), "new": [asdict(erasure) for erasure in self._new]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        erasures = cls()
        erasures._until.update((origin, ms) for origin, ms in values.get("until", ()))
        erasures._new = [Erasure(**item) for item in values.get("new", ())]
        return erasures


def stems_from(vote: Vote, erasure: Erasure) -> bool:
    """True if the vote judges an answer of the conversation that was erased; where all of a person's was, if it is
    theirs, or holds what they wrote or were answered.

    Votes of earlier releases do not say whose conversations they judge: those of the person who erased it count.
    """
    if erasure.whole and erasure.person in (vote.person, *vote.owners):
        return True
    if vote.origins:
        return erasure.origin in vote.origins
    return bool(erasure.person) and (vote.conversation_id, vote.person) == (erasure.conversation_id, erasure.person)
