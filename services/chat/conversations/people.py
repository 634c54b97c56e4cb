"""All that is a person's, erased at once: said in the log, then their key deleted, then told which versions saw it.

    log ──▶ "all of this person's was erased" ──▶ read models, trainer: let go of it
    key store ──▶ the key is deleted          ──▶ log, Kafka, checkpoints and backups hold noise

In this order, so that a kill in between leaves what asking again completes. It is acknowledged when both are done. Each
conversation that is known here is erased by its own name too, for what earlier releases kept by that name alone.
"""

import asyncio
import re
import uuid
from contextlib import suppress

from typing_extensions import TypedDict

from rlhf_online.attribution.trace import person_data
from rlhf_online.errors import FileDamaged, KeysUnavailable, ReadModelUnavailable
from rlhf_online.eventlog.base import Position
from rlhf_online.events import Envelope, Erasure, now_ms
from rlhf_online.versions.catalogue import Catalogue
from services.chat.bodies.api_error import ApiError, unavailable
from services.chat.bodies.documented import documented
from services.chat.conversations.store import ConversationStore
from services.chat.event_writer import EventWriter

AT_ONCE = 256
HASH = re.compile(r"[0-9a-f]{32}")


@documented
class PersonErased(TypedDict):
    """All that was the person's is erased: the log says so on disk, and their key is deleted."""

    person: str
    """The hash that stands for the person."""
    conversations: int
    """How many conversations this service kept of them."""
    position: Position
    """Where the log stands after that: a version whose position covers it has learned nothing more from them."""
    shredded: bool
    """True if what they said was sealed, and its key is deleted; without a key store log, Kafka and backups hold it
    until retention."""
    versions: list[str]
    """The versions that have learned from them, or go back to one that has, until then."""


class People:
    """Erases people from what `writer` writes and `store` keeps; `catalogue` knows what versions learned from."""

    def __init__(self, store: ConversationStore, writer: EventWriter, catalogue: Catalogue) -> None:
        self._store = store
        self._writer = writer
        self._catalogue = catalogue

    async def erase(self, person: str) -> PersonErased:
        """Raises LogUnavailable: not erased; ApiError (503): not wholly, ask again; 400 for what is nobody's hash."""
        if not HASH.fullmatch(person):
            raise ApiError("person: expected the hash that stands for a person, 32 hexadecimal digits", param="person")
        known = await asyncio.to_thread(self._conversations, person)
        now = now_ms()
        self._writer.erase(person, now)
        position = await self._append(Erasure(conversation_id="", person=person, erased_ms=now))
        for first in range(0, len(known), AT_ONCE):
            named = known[first : first + AT_ONCE]
            each = [Erasure(conversation_id=name, person=person, erased_ms=now) for name in named]
            position = max(await asyncio.gather(*map(self._append, each)), key=lambda found: max(found.values()))
        if self._writer.keys is not None:
            try:
                await asyncio.to_thread(self._writer.keys.erase, person)
            except KeysUnavailable as error:
                message = (
                    f"nothing more is learned from it, but the key that reads it is not deleted: {error}; ask again"
                )
                raise unavailable(message, "keystore_unavailable") from error
        return {
            "person": person,
            "conversations": len(known),
            "position": position,
            "shredded": self._writer.keys is not None,
            "versions": await asyncio.to_thread(self._versions, person),
        }

    async def _append(self, erasure: Erasure) -> Position:
        return await self._writer.append(Envelope(event_id=f"erasure-{uuid.uuid4().hex}", event=erasure))

    def _conversations(self, person: str) -> list[str]:
        with suppress(ReadModelUnavailable):  # it may be this person's lost key that it waits for
            self._store.catch_up()
        return self._store.names(person)

    def _versions(self, person: str) -> list[str]:
        try:
            return [row["version"] for row in person_data(person, self._catalogue)["versions"]]
        except (OSError, FileDamaged) as error:
            message = f"it is erased; which versions have learned from it cannot be read now ({error}): ask again"
            raise unavailable(message, "versions_unavailable") from error
