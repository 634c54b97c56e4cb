"""Answers that may still be judged: found by completion id, kept on disk, in order of arrival.

The newest are in memory; `seal` writes them to a file that is never changed again and is named after its content. A
checkpoint names the files that hold its answers. In memory stay 28 bytes an answer: the hash of its id, its time, and
where it ends in its file. Small files are joined into larger ones, each answer a few times in all.

What was sealed in the log is kept sealed, and opened when it is asked for. An answer whose person's key was deleted
stays as Shredded, so that votes on it are known to be erased.

A file is the answers' protobuf envelopes, one after another; then an entry for each (u64 hash of the completion id, i64
time in ms, u32 end of its bytes); then their number as u64; all little-endian.
"""

import bisect
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from rlhf_online.durable import content_name, write_bytes
from rlhf_online.errors import CheckpointError, StateLost, UndecodableEvent
from rlhf_online.events import Completion, Envelope, Shredded
from rlhf_online.wire import decode, encode

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

SEAL_BYTES = 64 << 20
"""Answers in memory beyond which they are sealed; also the size beyond which files are not joined."""

_ENTRY = np.dtype([("key", "<u8"), ("ms", "<i8"), ("end", "<u4")])
_COUNT = np.dtype("<u8")


@dataclass(frozen=True, slots=True)
class _File:
    """A sealed file: its first answer is the `first`-th ever added; `ms` and `end` have an item for each."""

    path: Path
    first: int
    ms: np.ndarray
    end: np.ndarray

    @property
    def stop(self) -> int:
        return self.first + len(self.ms)

    @property
    def size(self) -> int:
        return int(self.end[-1])

    def body(self, number: int) -> bytes:
        """The bytes of the `number`-th answer. Raises OSError."""
        begin = int(self.end[number - 1]) if number else 0
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            return os.pread(descriptor, int(self.end[number]) - begin, begin)
        finally:
            os.close(descriptor)


class AnswerStore:
    """The open answers, of which the oldest go first: by `expire`, or beyond `capacity`. One thread.

    Answers are numbered as they come; those from `first` on are open. `keys` open what is sealed.
    """

    def __init__(self, folder: Path, capacity: int = 10_000_000, keys: "Keyring | None" = None) -> None:
        self.folder = folder
        self.keys = keys
        self.first = 0
        self._capacity = capacity
        self._next = 0
        self._recent: dict[str, tuple[int, int, bytes]] = {}
        self._recent_bytes = 0
        self._files: list[_File] = []
        # Sealed answers, by the hash of their id, ascending; closed ones go when they are the half of it.
        self._keys = np.empty(0, dtype=np.uint64)
        self._numbers = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self._next - self.first

    @property
    def full(self) -> bool:
        """True if there is so much in memory that it should be sealed."""
        return self._recent_bytes >= SEAL_BYTES

    def add(self, envelope: Envelope, completion: Completion | Shredded, ms: int) -> None:
        """Take in the envelope of a completion that is not open yet, at the time `ms`, which never goes back."""
        data = encode(envelope)
        self._recent[_id(envelope, completion)] = (self._next, ms, data)
        self._recent_bytes += len(data)
        self._next += 1
        if len(self) > self._capacity:
            self._close(self._next - self._capacity)

    def get(self, completion_id: str) -> Completion | Shredded | None:
        """The open completion of that id. Raises StateLost if its file cannot be read; KeysUnavailable."""
        if (recent := self._recent.get(completion_id)) is not None:
            return self._opened(recent[2])[1]
        key = np.uint64(key_of(completion_id))
        begin, end = np.searchsorted(self._keys, key, "left"), np.searchsorted(self._keys, key, "right")
        for number in self._numbers[begin:end].tolist():
            if number >= self.first:
                found_id, found = self._sealed(number)
                if found_id == completion_id:
                    return found
        return None

    def expire(self, before_ms: int) -> None:
        """Close what came before that time."""
        first = self.first
        for file in self._files:
            first = max(first, file.first + int(np.searchsorted(file.ms, before_ms)))
            if first < file.stop:
                break
        else:
            for number, ms, _ in self._recent.values():
                if ms >= before_ms:
                    break
                first = number + 1
        self._close(first)

    def seal(self) -> list[str]:
        """Write what is in memory to a file, durably; the names of all files that hold open answers, in order.

        Raises CheckpointError, after which all is as it was.
        """
        if self._recent:
            keys = np.array([key_of(completion_id) for completion_id in self._recent], dtype=np.uint64)
            items = [(ms, data) for _, ms, data in self._recent.values()]
            first = self._next - len(items)
            files = list(self._files)
            pieces: list[_File] = []
            size = self._recent_bytes
            while files and files[-1].size <= size and files[-1].size + size <= SEAL_BYTES:
                size += files[-1].size
                pieces.insert(0, files.pop())
            file = self._write(pieces, items, keys)
            self._files = [*files, file]
            order = np.argsort(keys, kind="stable")
            places = np.searchsorted(self._keys, keys[order])
            self._keys = np.insert(self._keys, places, keys[order])
            self._numbers = np.insert(self._numbers, places, first + order)
            self._recent, self._recent_bytes = {}, 0
        return [file.path.name for file in self._files]

    @classmethod
    def load(
        cls,
        folder: Path,
        names: Sequence[str],
        first: int,
        after: int,
        capacity: int = 10_000_000,
        keys: "Keyring | None" = None,
    ) -> Self:
        """The answers that `seal` named when `first` was the first open one and `after` had come in all.

        Raises CheckpointError for a file that is missing or none of ours.
        """
        answers = cls(folder, capacity, keys)
        hashes: list[np.ndarray] = []
        stop = after
        for name in reversed(names):
            entries = _entries(folder / name)
            stop -= len(entries)
            file = _File(folder / name, stop, entries["ms"].copy(), entries["end"].copy())
            answers._files.insert(0, file)
            hashes.insert(0, entries["key"])
        answers.first, answers._next = first, after
        if hashes:
            joined = np.concatenate(hashes)
            order = np.argsort(joined, kind="stable")
            answers._keys, answers._numbers = joined[order], stop + order
        return answers

    @property
    def total(self) -> int:
        """How many were ever added."""
        return self._next

    def _sealed(self, number: int) -> tuple[str, Completion | Shredded]:
        file = self._files[bisect.bisect_right(self._files, number, key=lambda each: each.first) - 1]
        try:
            return self._opened(file.body(number - file.first))
        except (OSError, UndecodableEvent) as error:
            raise StateLost(
                f"{file.path} cannot be read ({error}): start the trainer again, it then uses a checkpoint whose files "
                "are good"
            ) from error

    def _opened(self, data: bytes) -> tuple[str, Completion | Shredded]:
        """With its id."""
        envelope = decode(data, self.keys)
        assert isinstance(envelope.event, Completion | Shredded)
        return _id(envelope, envelope.event), envelope.event

    def _close(self, first: int) -> None:
        """Drop everything before the `first`-th."""
        self.first = max(self.first, first)
        while self._files and self._files[0].stop <= self.first:
            del self._files[0]
        while self._recent:
            oldest = next(iter(self._recent))
            number, _, data = self._recent[oldest]
            if number >= self.first:
                break
            del self._recent[oldest]
            self._recent_bytes -= len(data)
        held = sum(len(file.ms) for file in self._files)
        if len(self._keys) > 2 * held:
            kept = self._numbers >= self.first
            self._keys, self._numbers = self._keys[kept], self._numbers[kept]

    def _write(self, pieces: Sequence[_File], items: Sequence[tuple[int, bytes]], keys: np.ndarray) -> _File:
        """A new file with everything in `pieces`, then the `items` of those keys."""
        try:
            old = [(_entries(piece.path), piece.path.read_bytes()[: piece.size]) for piece in pieces]
            bodies = [body for _, body in old] + [data for _, data in items]
            entries = np.zeros(sum(len(each) for each, _ in old) + len(items), dtype=_ENTRY)
            entries["key"] = np.concatenate([*(each["key"] for each, _ in old), keys])
            entries["ms"] = np.concatenate([*(each["ms"] for each, _ in old), [ms for ms, _ in items]])
            entries["end"] = np.cumsum([*_sizes(each for each, _ in old), *(len(data) for _, data in items)])
            content = b"".join([*bodies, entries.tobytes(), np.array(len(entries), dtype=_COUNT).tobytes()])
            first = pieces[0].first if pieces else self._next - len(items)
            path = self.folder / content_name(f"answers-{first:012d}", content, ".bin")
            write_bytes(path, content)
        except OSError as error:
            raise CheckpointError(f"cannot write to {self.folder}: {error.strerror}; free some space") from error
        return _File(path, first, entries["ms"].copy(), entries["end"].copy())


def _id(envelope: Envelope, event: Completion | Shredded) -> str:
    return event.completion_id if isinstance(event, Completion) else envelope.event_id


def _sizes(files: Iterator[np.ndarray]) -> Iterator[int]:
    """Bytes of each answer of the files."""
    for entries in files:
        yield from np.diff(entries["end"], prepend=np.uint32(0)).tolist()


def _entries(path: Path) -> np.ndarray:
    """The entries at a file's end. Raises CheckpointError."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(size - _COUNT.itemsize)
            count = int(np.frombuffer(file.read(), dtype=_COUNT)[0])
            file.seek(size - _COUNT.itemsize - count * _ENTRY.itemsize)
            return np.frombuffer(file.read(count * _ENTRY.itemsize), dtype=_ENTRY)
    except (OSError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def key_of(completion_id: str) -> int:
    """Of two ids with one key the files tell which is which."""
    return int.from_bytes(hashlib.blake2b(completion_id.encode(), digest_size=8).digest(), "little")
