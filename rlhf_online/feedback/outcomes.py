"""What became of votes: facts that the trainer writes, and whoever shares the store of versions with it reads.

    votes/head   the number of the chunk that is written to now
    votes/7      a chunk: its number and when it was begun, then one line a fact: KEY WORD DETAIL, later facts behind
                 earlier ones. Of CHUNKS places the oldest is overwritten, which bounds the whole
    votes/now    the same lines for what the trainer has read and not committed: replaced again and again

A key is a digest of a vote's id and its person's hash, so that whoever reads finds what became of their own votes, and
nothing of anybody else's; no text of a conversation is here.

Invariant: what stands in a chunk has been committed: a checkpoint says the same. A batch is written after the commit,
and again after a kill between the two, which changes nothing.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from rlhf_online.events import now_ms
from rlhf_online.versions.store import VersionStore

Word = Literal[
    "waiting",
    "joined",
    "trained",
    "kept",
    "held_out",
    "held_back",
    "orphaned",
    "dead_lettered",
    "superseded",
    "withdrawn",
    "erased",
]
"""`waiting` and `joined` are of votes/now alone. The detail of `trained` and `kept` (among the votes that are replayed,
and not learned from as new) is the reward version; of `dead_lettered` the reason; of `superseded` and `withdrawn` the
vote that did it, where it is known. One that is `held_back` teaches no reward version: it teaches the model that the
gate judges by."""
WORDS = get_args(Word)

CHUNKS = 256
CHUNK_BYTES = 256 << 10
"""Size from which on another chunk is begun."""
LONGEST_DETAIL = 200
CLOCKS_MS = 86_400_000
"""How far clocks of two machines may be apart."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A fact about a vote; `settled` once it was committed."""

    word: Word
    detail: str = ""
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the board was read: the chunk, and characters of it."""

    number: int = 0
    read: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """`said`: facts by their votes' keys, in their order; `begun_ms`: when their chunk was begun, 0 if there is none;
    `more`: whether there are chunks behind it."""

    said: tuple[tuple[str, Outcome], ...]
    mark: Mark
    begun_ms: int
    more: bool


def vote_key(event_id: str, person: str) -> str:
    """By which what became of the person's vote is found."""
    digest = hashlib.blake2b(f"{person}:{event_id}".encode(), digest_size=12).digest()
    return base64.urlsafe_b64encode(digest).decode()


def fact(word: Word, detail: str = "") -> str:
    """The fact as a chunk holds it, behind the vote's key."""
    return f"{word} {' '.join(detail.split())[:LONGEST_DETAIL]}".rstrip()


class OutcomeBoard:
    """The facts in `store`. One writer, any number of readers."""

    def __init__(self, store: VersionStore) -> None:
        self._store = store

    def publish(self, facts: Mapping[str, str]) -> None:
        """Add committed facts by their votes' keys, durably. The batch that was added last is not added twice.

        Raises OSError, FileDamaged.
        """
        batch = _lines(facts)
        if not batch:
            return
        recorded = self._store.read("votes/head")
        head = _number(recorded)
        place = f"votes/{head % CHUNKS}"
        before = self._store.read(place)
        chunk = before if before and _begun(before)[0] == head else ""
        if chunk.endswith(batch):
            return
        if len(chunk) >= CHUNK_BYTES:
            head += 1
            place, chunk = f"votes/{head % CHUNKS}", ""
            before = self._store.read(place)
            if before and before.endswith(batch) and _begun(before)[0] == head:
                chunk = before  # a kill came before the head was written
        if not chunk.endswith(batch):
            self._store.replace(place, (chunk or f"{head} {now_ms()}\n") + batch, expected=before)
        if recorded is None or _number(recorded) != head:
            self._store.replace("votes/head", str(head), expected=recorded)

    def show(self, facts: Mapping[str, str]) -> None:
        """Replace what votes/now says. Raises OSError, FileDamaged."""
        self._store.replace("votes/now", _lines(facts), expected=self._store.read("votes/now"))

    def find(self, event_id: str, person: str, since_ms: int = 0) -> list[Outcome]:
        """What became of the person's vote, which was taken at `since_ms`: facts in their order, those not committed
        last. Raises OSError, FileDamaged."""
        key = vote_key(event_id, person)
        now = self._store.read("votes/now") or ""
        settled: list[Outcome] = []
        head = _number(self._store.read("votes/head"))
        for number in range(head, max(-1, head - CHUNKS), -1):
            chunk = self._store.read(f"votes/{number % CHUNKS}") or ""
            of, begun_ms = _begun(chunk)
            if of == number:
                settled = [*_facts(chunk, key), *settled]
            if begun_ms < since_ms - CLOCKS_MS:
                break
        found = {(outcome.word, outcome.detail) for outcome in settled}
        return settled + [
            Outcome(outcome.word, outcome.detail, settled=False)
            for outcome in _facts(now, key)
            if (outcome.word, outcome.detail) not in found
        ]

    def since(self, mark: Mark) -> Facts:
        """The committed facts behind `mark`, of one chunk at most: ask again while there are more.

        Chunks that were overwritten meanwhile are passed over. Raises OSError, FileDamaged.
        """
        head = _number(self._store.read("votes/head"))
        number = max(mark.number, head - CHUNKS + 1, 0)
        chunk = self._store.read(f"votes/{number % CHUNKS}") or ""
        of, begun_ms = _begun(chunk)
        read = mark.read if number == mark.number else 0
        said = tuple(_all(chunk[read:])) if of == number else ()
        following = Mark(number + 1, 0) if number < head else Mark(number, len(chunk) if of == number else 0)
        return Facts(said=said, mark=following, begun_ms=max(begun_ms, 0), more=number < head)


def _lines(facts: Mapping[str, str]) -> str:
    return "".join(f"{key} {said}\n" for key, said in sorted(facts.items()))


def _facts(lines: str, key: str) -> Iterator[Outcome]:
    at = -1
    while (at := lines.find(f"{key} ", at + 1)) >= 0:
        if at == 0 or lines[at - 1] == "\n":
            word, _, detail = lines[at + len(key) + 1 :].partition("\n")[0].partition(" ")
            if word in WORDS:
                yield Outcome(cast("Word", word), detail)


def _all(lines: str) -> Iterator[tuple[str, Outcome]]:
    for line in lines.split("\n"):
        key, _, said = line.partition(" ")
        word, _, detail = said.partition(" ")
        if word in WORDS:
            yield key, Outcome(cast("Word", word), detail)


def _number(value: str | None) -> int:
    """0 where there is none, or a damaged one: the chunks of before are then overwritten in turn."""
    return int(value) if value is not None and value.strip().isdecimal() else 0


def _begun(chunk: str) -> tuple[int, int]:
    """A chunk's number and when it was begun; (-1, 0) for what is none."""
    number, _, ms = chunk.partition("\n")[0].partition(" ")
    return (int(number), int(ms)) if number.isdecimal() and ms.isdecimal() else (-1, 0)
