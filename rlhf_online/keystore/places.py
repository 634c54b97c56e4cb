"""Where people's content keys lie: a record a person, in a folder or in a bucket, changed by compare-and-set.

    keystore                    {"format", "identity", "kek"}: which key store this is, made once
    people/3f/3f9c….json        {"id", "key", "erased", "deleted"}: the key in use, and which before it were deleted

A record outlives its key: it tells a key that was deleted from one that is missing, which a store that is away, emptied
or restored from an old copy looks like. The name of a record is a digest
of the person's hash. A folder's record is written aside and renamed, so that nothing of a deleted key stays in a file;
a bucket must keep no earlier versions of its objects for longer than people are promised (docs/recovery.md).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rlhf_online import locks
from rlhf_online.durable import fsync_folder, make_folder, write_bytes, write_once
from rlhf_online.errors import FileDamaged

if TYPE_CHECKING:
    from rlhf_online.versions.bucket import Bucket, Object

STORE = "keystore"
ANY = "*"
"""Among the ids of deleted keys: whatever key is not the one in use."""
MOST_NAMED = 1000
"""Deleted keys whose ids a record keeps: it is written and read whole."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A person's record. `id` and `key` (base64, wrapped where there is a key for that) are "" while there is no key;
    `erased`: whatever keys the person had before this one were deleted, and `deleted` are their ids. A record of an
    earlier release names none (ANY)."""

    id: str = ""
    key: str = ""
    erased: bool = False
    deleted: tuple[str, ...] = ()

    def without_key(self) -> "Entry":
        """The record once its key, if there is one, is deleted. Of whoever erased very often it names none any more."""
        deleted = (*self.deleted, self.id) if self.id else self.deleted
        return Entry(erased=True, deleted=deleted if len(deleted) <= MOST_NAMED else (ANY,))

    def tells_deleted(self, key_id: str) -> bool:
        """Whether the key was deleted; this record, if it is an old copy, does not know of a later one."""
        return key_id != self.id and (key_id in self.deleted or ANY in self.deleted)

    def encode(self) -> bytes:
        values = {"id": self.id, "key": self.key, "erased": self.erased, "deleted": self.deleted}
        return json.dumps(values).encode()

    @classmethod
    def decode(cls, data: bytes, place: str) -> "Entry":
        """Raises FileDamaged."""
        try:
            values = json.loads(data)
            erased = bool(values["erased"])
            deleted = tuple(map(str, values.get("deleted", [ANY] if erased else [])))
            return cls(str(values["id"]), str(values["key"]), erased, deleted)
        except (ValueError, KeyError, TypeError) as error:
            raise FileDamaged(f"{place} is no record of a key: bring it back from the key store's own copy") from error


class KeyPlace(Protocol):
    """Safe for several threads and processes. Every method may raise OSError where the place does not answer now."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    def store(self, new: bytes | None) -> bytes | None:
        """What names this store; it becomes `new`, if that is given, where nothing does yet."""
        ...

    def read(self, person: str) -> Entry | None:
        """The person's record, None if there is none. Raises FileDamaged."""
        ...

    def replace(self, person: str, entry: Entry, *, expected: Entry | None) -> bool:
        """Make it `entry` if it still is `expected`; False if it is not. Durable when it returns.

        Raises FileDamaged.
        """
        ...

    def settle(self, person: str) -> None:
        """Make certain that the record, which was read, is durable: who wrote it may have been killed before it was."""
        ...


class FolderKeys:
    """In a folder, closed to other users."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def name(self) -> str:
        return str(self._root)

    def store(self, new: bytes | None) -> bytes | None:
        path = self._root / STORE
        if new is None:
            return path.read_bytes() if path.is_file() else None
        make_folder(self._root, mode=0o700)
        return write_once(path, new.decode(), mode=0o600).encode()

    def read(self, person: str) -> Entry | None:
        path = self._root / _key(person)
        try:
            return Entry.decode(path.read_bytes(), str(path))
        except FileNotFoundError:
            if not (self._root / STORE).is_file():
                raise
            return None

    def replace(self, person: str, entry: Entry, *, expected: Entry | None) -> bool:
        path = self._root / _key(person)
        with locks.acquire(self._root / "lock"):
            if self.read(person) != expected:
                return False
            make_folder(path.parent, mode=0o700)
            write_bytes(path, entry.encode(), mode=0o600)
            return True

    def settle(self, person: str) -> None:
        fsync_folder((self._root / _key(person)).parent)


class BucketKeys:
    """In a bucket, below its prefix."""

    def __init__(self, bucket: "Bucket") -> None:
        self._bucket = bucket

    @property
    def name(self) -> str:
        return self._bucket.url

    def store(self, new: bytes | None) -> bytes | None:
        found = self._bucket.get(STORE)
        if found is None and new is not None:
            found = self._bucket.put(STORE, new, None) or self._bucket.get(STORE)
        return found.data if found else None

    def read(self, person: str) -> Entry | None:
        return self._read(person)[0]

    def replace(self, person: str, entry: Entry, *, expected: Entry | None) -> bool:
        found, known = self._read(person)
        return found == expected and self._bucket.put(_key(person), entry.encode(), known) is not None

    def settle(self, person: str) -> None:
        """What a bucket tells is there."""

    def _read(self, person: str) -> "tuple[Entry | None, Object | None]":
        found = self._bucket.get(_key(person))
        return (Entry.decode(found.data, self._bucket.place(_key(person))), found) if found else (None, None)


def _key(person: str) -> str:
    name = hashlib.sha256(person.encode()).hexdigest()[:32]
    return f"people/{name[:2]}/{name}.json"
