"""Versions in a bucket (`bucket`), which many machines share.

    versions/policy-000012.json   its manifest, as it was put, and the SHA-256 and size of each of its files; made once
    blobs/sha256/…                a file's content, stored once, whoever has it (`blobs`)
    discarded/policy-000012       its files are discarded: the manifest stays
    records/live/policy           a record: the pointer, a state, a report, …, changed under a condition (If-Match)
    conditional-writes            what the bucket's conditions are tried on

A version is there from the moment on at which its versions/….json is, which is written last, under the condition that
there is none. What was read of a record is kept with its tag, so that asking again costs one small request, answered
"not modified"; what was read of a version is kept for good.
"""

import json
import shutil
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

from rlhf_online.durable import make_folder
from rlhf_online.errors import UnknownVersion, VersionCorrupt
from rlhf_online.versions.blobs import Blobs
from rlhf_online.versions.bucket import Bucket, Object
from rlhf_online.versions.local_copies import LocalCopies
from rlhf_online.versions.manifest import NAME, VersionFile
from rlhf_online.versions.store import ManifestOf, Stray, described

REMEMBERED_BYTES = 32 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Put:
    """What was put under a version's name."""

    manifest: bytes
    files: Mapping[str, VersionFile]


class _Remembered(Generic[T]):
    """The values that were used last, of REMEMBERED_BYTES together. Safe for several threads."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> T | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: str, value: T | None, size: int) -> None:
        """In place of what it was; None forgets it."""
        with self._lock:
            _, before = self._values.pop(key, (None, 0))
            self._bytes -= before
            if value is not None:
                self._values[key] = value, size
                self._bytes += size
            while self._bytes > REMEMBERED_BYTES:
                _, (_, oldest) = self._values.popitem(last=False)
                self._bytes -= oldest


class ObjectStore:
    """See `store.VersionStore`. Copies lie in `local`, of about `most` bytes; every change is made within `guard()`,
    which may raise to forbid it, as in `folder_store.FolderStore`.

    Large because a store is what `VersionStore` asks of it.
    """

    def __init__(
        self,
        bucket: Bucket,
        local: Path,
        most: int,
        guard: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._bucket = bucket
        self._blobs = Blobs(bucket)
        self._copies = LocalCopies(local, most, self._blobs.fetch)
        self._local = local
        self._guard = guard
        self._own = uuid.uuid4().hex[:8]  # what this one stages, no other writes into
        self._put = _Remembered[_Put]()
        self._records = _Remembered[Object]()
        self._known: set[str] = set()

    # Versions

    def versions(self) -> list[str]:
        names = [each.name.removesuffix(".json") for each in self._bucket.listed("versions")]
        self._known.update(found := [name for name in names if NAME.fullmatch(name)])
        return found

    def contains(self, version: str) -> bool:
        if version not in self._known and NAME.fullmatch(version) and self._bucket.head(_version_key(version)):
            self._known.add(version)
        return version in self._known

    def manifest(self, version: str) -> bytes:
        return self._read_version(version).manifest

    def files(self, version: str) -> frozenset[str]:
        files = self._read_version(version).files
        return frozenset() if files and self._bucket.head(f"discarded/{version}") else frozenset(files)

    def materialise(self, version: str) -> Path:
        files = self._read_version(version).files
        return self._copies.folder(version, files if self.files(version) else {})

    def file(self, version: str, path: str) -> Path:
        if (file := self._read_version(version).files.get(path)) is None:
            raise FileNotFoundError(f"{version} has no file {path}")
        return self._copies.file(file)

    def mend(self, version: str) -> bool:
        return self._copies.mend(version, self._read_version(version).files)

    def stage(self, version: str) -> Path:
        folder = self._local / f".staging-{version}-{self._own}"
        with self._guard():
            for old in self._local.glob(f".staging-{version}-*"):
                shutil.rmtree(old, ignore_errors=True)
            make_folder(self._local)
            folder.mkdir()
        return folder

    def put(self, version: str, staged: Path, manifest: ManifestOf) -> None:
        found = described(staged)
        files = {file.path: file for file in found}
        for path, file in files.items():
            self._blobs.upload(staged / path, file)
        values = {"files": [asdict(file) for file in found], "manifest": manifest(found).decode()}
        with self._guard():
            made = self._bucket.put(_version_key(version), json.dumps(values).encode(), None)
        self._known.add(version)
        if made is None:
            shutil.rmtree(staged, ignore_errors=True)
        else:
            self._copies.adopt(version, staged, files)

    def discard_files(self, version: str) -> None:
        files = self._read_version(version).files
        with self._guard():
            self._bucket.put(f"discarded/{version}", b"", None)
            kept = self._named()
            self._blobs.delete({file.sha256 for file in files.values()} - kept)
        self._copies.drop(version)

    # Records

    def read(self, key: str) -> str | None:
        found = self._read_record(key)
        return None if found is None else _text(found)

    def place(self, key: str) -> str:
        return self._bucket.place(f"records/{key}")

    def replace(self, key: str, value: str, *, expected: str | None) -> bool:
        known = self._records.get(key)
        if expected is not None and (known is None or _text(known) != expected):
            known = self._read_record(key)
            if known is None or _text(known) != expected:
                return False
        with self._guard():
            written = self._bucket.put(f"records/{key}", value.encode(), known if expected is not None else None)
        if written is None:
            return False
        self._records.put(key, written, len(written.data))
        return True

    # What belongs to none

    def strays(self) -> list[Stray]:
        return self._blobs.strays(self._named)

    def remove(self, strays: Sequence[Stray]) -> None:
        with self._guard():
            self._bucket.delete(stray.key for stray in strays)

    def _named(self) -> frozenset[str]:
        """The blobs of all versions whose files are not discarded."""
        discarded = {each.name for each in self._bucket.listed("discarded")}
        kept = [version for version in self.versions() if version not in discarded]
        return frozenset(file.sha256 for version in kept for file in self._read_version(version).files.values())

    # Reading and writing

    def _read_version(self, version: str) -> _Put:
        """Raises UnknownVersion, VersionCorrupt."""
        if (known := self._put.get(version)) is not None:
            return known
        found = self._bucket.get(_version_key(version)) if NAME.fullmatch(version) else None
        if found is None:
            self._known.discard(version)
            raise UnknownVersion(f"no version {version!r}: `rlhf-online versions list` shows them")
        try:
            values = json.loads(found.data)
            files = {item["path"]: VersionFile(**item) for item in values["files"]}
            put = _Put(values["manifest"].encode(), files)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            place = self._bucket.place(_version_key(version))
            raise VersionCorrupt(f"{version}: {place} cannot be read ({error})") from error
        self._put.put(version, put, len(found.data))
        return put

    def _read_record(self, key: str) -> Object | None:
        known = self._records.get(key)
        found = self._bucket.get(f"records/{key}", known)
        if found is not known:
            self._records.put(key, found, len(found.data) if found else 0)
        return found


def _text(record: Object) -> str:
    """What the record says; of one that is damaged what can be read of it."""
    return record.data.decode(errors="replace")


def _version_key(version: str) -> str:
    return f"versions/{version}.json"
