"""What became of every event: the proof that none is taken into training twice.

Kept as 16-byte digests of the event ids: what was taken since the last `seal` in a dict, the rest in one sorted array.
`seal` writes the new ones to a file that is never changed again, named after its content; a checkpoint names its files.
A new file takes in those before it that are no larger, so that there are few, and each entry is written a few times.

A file is a run of 17-byte entries: the disposition's number, then the digest.

`news` is what people are told of their votes once it is committed (`feedback.outcomes`): the same, and no more.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np

from rlhf_online.durable import content_name, write_bytes
from rlhf_online.errors import CheckpointError
from rlhf_online.feedback.outcomes import Word, fact, vote_key
from rlhf_online.training import parity

Disposition = Literal["trained", "held_out", "orphaned", "dead_lettered", "rollout", "withdrawn", "erased"]

_DISPOSITIONS: tuple[Disposition, ...] = get_args(Disposition)
_ENTRY = np.dtype([("disposition", "u1"), ("digest", "S16")])
_FILE_BYTES = 64 << 20
"""Files beyond this size stay as they are."""


class Ledger:
    """Event ids and what became of each; an id is taken once, for ever."""

    def __init__(self) -> None:
        self.news: dict[str, str] = {}
        """Facts about votes, by their keys, that were not published yet; those of a commit are part of it."""
        self._recent: dict[bytes, int] = {}
        # numpy pads an S16 with NULs and strips them from what it returns: for digests, all of 16 bytes, no two are
        # confused by that.
        self._sealed = np.empty(0, dtype="S16")
        self._counts = dict.fromkeys(_DISPOSITIONS, 0)
        self._files: list[tuple[str, int]] = []
        """Name and size of each."""

    def take(self, event_id: str, disposition: Disposition) -> bool:
        """Record what becomes of the event; False, and nothing changes, if it was taken before."""
        if self.known(event_id):
            return False
        self._recent[_digest(event_id)] = _DISPOSITIONS.index(disposition)
        self._counts[disposition] += 1
        return True

    def give_back(self, event_id: str) -> None:
        """Take back a `take` since the last seal: nothing became of the event."""
        self._counts[_DISPOSITIONS[self._recent.pop(_digest(event_id))]] -= 1

    def erase(self, event_id: str, person: str) -> None:
        """The person's vote judges an answer that was erased; one that was taken before stays what it is."""
        if self.take(event_id, "erased"):
            self.tell(event_id, person, "erased")

    def tell(self, event_id: str, person: str, word: Word, detail: str = "") -> None:
        """Have the person told of their vote."""
        key = vote_key(event_id, person)
        self.news.pop(key, None)  # the last fact stands last
        self.news[key] = fact(word, detail)

    def known(self, event_id: str) -> bool:
        """True if the event was taken before."""
        digest = _digest(event_id)
        if digest in self._recent:
            return True
        at = int(np.searchsorted(self._sealed, np.bytes_(digest)))
        return at < len(self._sealed) and bytes(self._sealed[at]) == digest.rstrip(b"\0")

    def counts(self) -> dict[Disposition, int]:
        """How many events there are of each disposition."""
        return dict(self._counts)

    def seal(self, folder: Path) -> list[str]:
        """Write what was taken since the last seal to a new file, durably; returns the names of all files in order.

        `folder` is the same for all seals of a ledger. Raises CheckpointError; the ledger then is as before.
        """
        if self._recent:
            entries = np.array([(number, digest) for digest, number in self._recent.items()], dtype=_ENTRY)
            files, data = list(self._files), entries.tobytes()
            try:
                while files and files[-1][1] <= len(data) and files[-1][1] + len(data) <= _FILE_BYTES:
                    data = _read(folder, files.pop()[0]) + data
                begin = sum(size for _, size in files) // _ENTRY.itemsize
                name = content_name(f"ledger-{begin:012d}", data, ".ids")
                write_bytes(folder / name, data)
            except OSError as error:
                raise CheckpointError(f"cannot write to {folder}: {error.strerror}; free some space") from error
            self._merge(entries["digest"])
            self._recent.clear()
            self._files = [*files, (name, len(data))]
        return [name for name, _ in self._files]

    @classmethod
    def load(cls, folder: Path, files: Sequence[str]) -> Self:
        """The ledger that `seal` returned `files` for.

        Raises CheckpointError for a file that is missing, was changed, or repeats an event.
        """
        ledger = cls()
        digests: list[np.ndarray] = []
        for name in files:
            try:
                data = _read(folder, name)
            except OSError as error:
                raise CheckpointError(f"cannot read {folder / name}: {error.strerror}") from error
            entries = np.frombuffer(data, dtype=_ENTRY)
            for number, count in enumerate(np.bincount(entries["disposition"], minlength=len(_DISPOSITIONS))):
                ledger._counts[_DISPOSITIONS[number]] += int(count)
            digests.append(entries["digest"])
            ledger._files.append((name, len(data)))
        if digests:
            ledger._sealed = np.sort(np.concatenate(digests))
        if len(ledger._sealed) > 1 and bool(np.any(ledger._sealed[1:] == ledger._sealed[:-1])):
            raise CheckpointError(f"the ledger in {folder} holds an event twice: use an older checkpoint")
        return ledger

    def _merge(self, digests: np.ndarray) -> None:
        new = np.sort(digests)
        self._sealed = np.insert(self._sealed, np.searchsorted(self._sealed, new), new)


def _read(folder: Path, name: str) -> bytes:
    """Mended, if need be and its parity can. Raises OSError; CheckpointError for a file that was changed."""
    data = (folder / name).read_bytes()
    if not name.endswith(content_name("", data, ".ids")):
        digits = name.removesuffix(".ids").rpartition("-")[2]
        data = (folder / name).read_bytes() if parity.mend(folder / name, digits) else data
    if not name.endswith(content_name("", data, ".ids")) or len(data) % _ENTRY.itemsize:
        raise CheckpointError(f"{folder / name} was changed since it was written: use an older checkpoint")
    return data


def _digest(event_id: str) -> bytes:
    return hashlib.blake2b(event_id.encode(), digest_size=16).digest()
