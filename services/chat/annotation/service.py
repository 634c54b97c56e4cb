"""What annotators ask of the queue, and what is told of it. The judgement itself is ordinary feedback.

Whoever is asked sees all that was acknowledged before: the log is followed to its end first.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from rlhf_online.feedback.agreement import Level, Units, alpha, interval, preferences
from rlhf_online.state import PersonHash
from services.chat.access.caller import Caller, PersonQuery
from services.chat.annotation.adding import Adding
from services.chat.annotation.guidelines import GuidelinesFile
from services.chat.annotation.items import (
    Agreement,
    AnnotationItem,
    Guidelines,
    ItemSkipped,
    ItemTakenBack,
    Progress,
    SkipItem,
)
from services.chat.annotation.queue import Queue, Taken
from services.chat.bodies.api_error import ApiError
from services.chat.bodies.validation import validate

PEOPLE = 100
"""Who are told of, those who judged most."""
NOTHING_YET = Agreement(alpha=None, interval=None, units=0)
REST = 20
"""How long nothing is counted anew, in times of what counting took: people are answered by the same process."""


class Annotation:
    """The queue that operators add to, for those who annotate."""

    def __init__(self, adding: Adding, guidelines: GuidelinesFile, person_hash: PersonHash) -> None:
        self.adding = adding
        self.votes = adding.votes
        self._queue = adding.queue
        self._guidelines = guidelines
        self._person_hash = person_hash
        self._agreed = (NOTHING_YET, NOTHING_YET)
        self._agreed_of, self._agree_s = -1, 0.0

    async def next(self, values: Mapping[str, Any], caller: Caller) -> AnnotationItem:
        """Raises ApiError: 404 if nothing is left for this person."""
        person = await self._person(validate(PersonQuery, values).user, caller)
        held = await asyncio.to_thread(self._queue.next, person)
        if held is None:
            message = "there is nothing to annotate: you have seen all that is there, or others are at it"
            raise ApiError(message, status=404, code="nothing_to_annotate")
        return {
            "object": "annotation.item",
            "item_id": held.item_id,
            "messages": held.messages,
            "answers": held.answers,
            "notes": held.notes,
            "expires_ms": held.expires_ms,
        }

    async def skip(self, item_id: str, values: Mapping[str, Any], caller: Caller) -> ItemSkipped:
        """Raises ApiError: 404 for an item that the person was not given, or has judged."""
        asked = validate(SkipItem, values)
        person = await self._person(asked.user, caller)
        if not await asyncio.to_thread(self._queue.skip, item_id, person, asked.reason):
            message = f"item_id: you were given no item {item_id!r} that you have not judged"
            raise ApiError(message, status=404, param="item_id", code="item_not_found")
        return {"item_id": item_id}

    async def take_back(self, item_id: str, values: Mapping[str, Any], caller: Caller) -> ItemTakenBack:
        """Raises ApiError: 404 for an item that the person was not given, or has judged; 409 if others have it now."""
        person = await self._person(validate(PersonQuery, values).user, caller)
        try:
            found = await asyncio.to_thread(self._queue.take_back, item_id, person)
        except Taken:
            message = f"item_id: others are at {item_id!r} now, or have judged it: go on with the next one"
            raise ApiError(message, status=409, param="item_id", code="item_taken") from None
        if not found:
            message = f"item_id: you were given no item {item_id!r} that you have not judged"
            raise ApiError(message, status=404, param="item_id", code="item_not_found")
        return {"item_id": item_id}

    async def progress(self, values: Mapping[str, Any], caller: Caller) -> Progress:
        """Raises ApiError."""
        person = caller.named(validate(PersonQuery, values).user, self._person_hash).person
        await asyncio.to_thread(self.votes.catch_up)
        return await asyncio.to_thread(self._progress, person)

    async def guidelines(self) -> Guidelines:
        return await asyncio.to_thread(self._guidelines.read)

    def _progress(self, person: str) -> Progress:
        counts = self._queue.counts()
        thumbs, rankings = self._agree()
        return {
            "items": counts.items,
            "finished": counts.finished,
            "in_progress": counts.in_progress,
            "annotations": sum(judged for _, judged, _ in counts.people),
            "wanted": counts.wanted,
            "skipped": sum(skipped for *_, skipped in counts.people),
            "yours": next((judged for each, judged, _ in counts.people if person and each == person), 0),
            "people": [
                {"person": each, "annotations": judged, "skipped": skipped}
                for each, judged, skipped in counts.people[:PEOPLE]
            ],
            "thumbs": thumbs,
            "rankings": rankings,
        }

    def _agree(self) -> tuple[Agreement, Agreement]:
        """As of the last vote, or, where the queue is so large that it takes time, of a little earlier."""
        if self._agreed_of != self.votes.taken and time.monotonic() >= self._agree_s:
            begun, self._agreed_of = time.monotonic(), self.votes.taken
            self._agreed = agreement(self._queue)
            self._agree_s = time.monotonic() + REST * (time.monotonic() - begun)
        return self._agreed

    async def _person(self, user: str, caller: Caller) -> str:
        """Who asks, all of whose acknowledged votes are taken in. Raises ApiError."""
        person = caller.named(user, self._person_hash).person
        if not person:
            message = "user: missing; an item is reserved for somebody: say for whom, or use a key"
            raise ApiError(message, param="user", code="missing_parameter")
        await asyncio.to_thread(self.votes.catch_up)
        return person


def agreement(queue: Queue) -> tuple[Agreement, Agreement]:
    """On single answers, and on orders of several."""
    thumbs: dict[str, list[int]] = {}
    orders = []
    for item_id, said in queue.judgements():
        if isinstance(said, bool):
            thumbs.setdefault(item_id, []).append(said)
        else:
            orders.append((item_id, said))
    singles = [[values] for values in thumbs.values()]
    return _agreement(singles, "nominal", 1), _agreement(preferences(orders), "ordinal", 2)


def _agreement(items: Sequence[Units], level: Level, sides: int) -> Agreement:
    """Each unit of an item is there from so many sides."""
    units = [*chain.from_iterable(items)]
    found, within = alpha(units, level), interval(items, level)
    return {
        "alpha": None if found is None else round(found, 4),
        "interval": None if found is None or within is None else [round(end, 4) for end in within],
        "units": sum(len(values) > 1 for values in units) // sides,
    }
