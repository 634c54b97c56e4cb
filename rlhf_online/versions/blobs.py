"""What versions are made of: files in a bucket, each stored once under its SHA-256, whoever has it.

They may be written by several at once, and twice: what they hold is what they are named by. One that no version has
named for GRACE is a stray, so whoever puts a version writes a blob anew that is half as old as that.
"""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rlhf_online.errors import VersionCorrupt
from rlhf_online.versions.bucket import Bucket
from rlhf_online.versions.manifest import VersionFile
from rlhf_online.versions.store import Stray

FOLDER = "blobs/sha256"
GRACE = timedelta(days=1)
VISIBLE_S = (0.5, 1.0, 2.0, 4.0)
"""How long a blob may take to be seen by others after it was written, in waits: some storage shows it late."""


class Blobs:
    """The blobs in `bucket`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def upload(self, path: Path, file: VersionFile) -> None:
        """Have the file's content there. Raises StoreUnavailable, OSError."""
        there = self._bucket.head(_key(file.sha256))
        if there is None or there.size != file.size or there.written < datetime.now(UTC) - GRACE / 2:
            self._bucket.upload(_key(file.sha256), path)

    def fetch(self, sha256: str, path: Path) -> None:
        """Write a blob into a new file. Raises StoreUnavailable, OSError; VersionCorrupt for one that is not there, or
        holds something else."""
        key = _key(sha256)
        came = self._bucket.download(key, path)
        for wait in VISIBLE_S:
            if came is not None:
                break
            time.sleep(wait)
            came = self._bucket.download(key, path)
        if came is None:
            raise VersionCorrupt(f"{self._bucket.place(key)} is missing: bring it back, or roll back")
        if came != sha256:
            raise VersionCorrupt(f"{self._bucket.place(key)} does not have the SHA-256 that it is named by")

    def strays(self, named: Callable[[], frozenset[str]]) -> list[Stray]:
        """Old ones that are not among those which versions have. Raises StoreUnavailable."""
        before = datetime.now(UTC) - GRACE
        old = [blob for blob in self._bucket.listed(FOLDER) if blob.written < before]
        kept = named() if old else frozenset()
        return [Stray(_key(blob.name), blob.size) for blob in old if blob.name not in kept]

    def delete(self, digests: Iterable[str]) -> None:
        """Remove them. Raises StoreUnavailable."""
        self._bucket.delete(map(_key, digests))


def _key(sha256: str) -> str:
    return f"{FOLDER}/{sha256}"
