"""Local copies of versions that lie elsewhere: what an engine loads is a folder.

    blobs/SHA256        a file, once, however many versions have it
    policy-000012/      a version: hard links to its blobs
    lock                held while folders are made of blobs, or removed; not while anything is fetched
    .…                  what is being fetched, staged or removed; of one whose process has ended nothing is used

Several processes share the folder. A file is fetched beside its place, its SHA-256 compared, and renamed; so is a
version's folder: it is there wholly or not at all. What is there has only the right size, for all that is asked here:
whoever loads a version compares its hashes first, and has it fetched anew if the disk has damaged it (`mend`).

Beyond `most` bytes the versions that were used least recently go. Of a kind the KEPT that were used last stay in any
case: an engine reads an adapter's files again when it made room for others.
"""

import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from rlhf_online import locks
from rlhf_online.durable import file_sha256, make_folder
from rlhf_online.versions.manifest import NAME, VersionFile

KEPT = 4
AT_ONCE = 4
"""Files that are fetched at the same time."""
FORGOTTEN_S = 86_400
"""Age from which on what was being written when its process ended is removed."""

Fetch = Callable[[str, Path], None]
"""Writes the blob of that SHA-256 into a new file. Raises OSError, VersionCorrupt."""


class LocalCopies:
    """In `root`. `fetch` brings what is not there."""

    def __init__(self, root: Path, most: int, fetch: Fetch) -> None:
        self.root = root
        self._blobs = root / "blobs"
        self._most = most
        self._fetch = fetch

    def folder(self, version: str, files: Mapping[str, VersionFile]) -> Path:
        """A folder with the version's files, fetched if it is not there. Raises OSError, VersionCorrupt."""
        place = self.root / version
        while not _whole(place, files):
            make_folder(self._blobs)
            missing = {file.sha256: file for file in files.values() if not self._has(file)}
            if missing:
                with ThreadPoolExecutor(AT_ONCE) as threads:
                    list(threads.map(self._bring, missing.values()))
            self._link(place, files)
        os.utime(place)
        return place

    def file(self, file: VersionFile) -> Path:
        """One file alone, under its digest; fetched if it is not there. Raises OSError, VersionCorrupt."""
        if not self._has(file):
            make_folder(self._blobs)
            self._bring(file)
        return self._blobs / file.sha256

    def adopt(self, version: str, staged: Path, files: Mapping[str, VersionFile]) -> None:
        """Make a folder of `root` that was staged, and put elsewhere, the copy of its version. Raises OSError."""
        make_folder(self._blobs)
        with locks.acquire(self.root / "lock"):
            for path, file in files.items():
                with suppress(FileExistsError):
                    os.link(staged / path, self._blobs / file.sha256)
            self._remove(self.root / version)
            staged.rename(self.root / version)
        self._make_room()

    def mend(self, version: str, files: Mapping[str, VersionFile]) -> bool:
        """Drop what is damaged of a version's copy, to be fetched anew; False if nothing is. Raises OSError."""
        place = self.root / version
        whole = place.is_dir() and all(_is(place / path, file) for path, file in files.items())
        if whole:
            return False
        with locks.acquire(self.root / "lock"):
            for file in files.values():
                if not _is(self._blobs / file.sha256, file):
                    (self._blobs / file.sha256).unlink(missing_ok=True)
            self._remove(place)
        return True

    def drop(self, version: str) -> None:
        """Forget the copy of a version whose files are discarded. Raises OSError."""
        if self.root.is_dir():
            with locks.acquire(self.root / "lock"):
                self._remove(self.root / version)

    def _has(self, file: VersionFile) -> bool:
        with suppress(FileNotFoundError):
            return (self._blobs / file.sha256).stat().st_size == file.size
        return False

    def _bring(self, file: VersionFile) -> None:
        aside = self._aside(file.sha256)
        try:
            self._fetch(file.sha256, aside)
            aside.rename(self._blobs / file.sha256)
        finally:
            aside.unlink(missing_ok=True)

    def _link(self, place: Path, files: Mapping[str, VersionFile]) -> None:
        """Make the version's folder of blobs; one of them may have gone meanwhile, and is then fetched again."""
        aside = self._aside(place.name)
        with locks.acquire(self.root / "lock"):
            if _whole(place, files):
                return
            try:
                aside.mkdir()
                for path, file in files.items():
                    (aside / path).parent.mkdir(parents=True, exist_ok=True)
                    os.link(self._blobs / file.sha256, aside / path)
                self._remove(place)
                aside.rename(place)
            except FileNotFoundError:
                shutil.rmtree(aside, ignore_errors=True)
                return
        self._make_room()

    def _make_room(self) -> None:
        with locks.acquire(self.root / "lock"):
            self._sweep()
            folders = {path: path.stat().st_mtime for path in self.root.iterdir() if NAME.fullmatch(path.name)}
            newest = sorted(folders, key=folders.__getitem__, reverse=True)
            kinds = Counter[str]()
            going: list[Path] = []
            for path in newest:
                kinds[kind := path.name.partition("-")[0]] += 1
                if kinds[kind] > KEPT:
                    going.append(path)
            while going and sum(blob.stat().st_size for blob in self._blobs.iterdir()) > self._most:
                self._remove(going.pop())

    def _sweep(self) -> None:
        """Remove what processes left behind that were killed."""
        old = time.time() - FORGOTTEN_S
        for path in (*self.root.iterdir(), *self._blobs.iterdir()):
            with suppress(FileNotFoundError):
                found = path.lstat()
                unused = path.name.startswith(".") or (path.parent == self._blobs and found.st_nlink == 1)
                if unused and found.st_mtime < old:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _remove(self, place: Path) -> None:
        """Remove a version's folder, and the blobs that no other has."""
        if not place.is_dir():
            return
        aside = self._aside(place.name)
        place.rename(aside)
        inodes = {path.stat().st_ino for path in aside.rglob("*") if path.is_file()}
        shutil.rmtree(aside)
        for blob in self._blobs.iterdir():
            if (found := blob.stat()).st_nlink == 1 and found.st_ino in inodes:
                blob.unlink()

    def _aside(self, name: str) -> Path:
        return self.root / f".{name}.{uuid.uuid4().hex[:8]}"


def _whole(place: Path, files: Mapping[str, VersionFile]) -> bool:
    try:
        return place.is_dir() and all((place / path).stat().st_size == file.size for path, file in files.items())
    except FileNotFoundError:
        return False


def _is(path: Path, file: VersionFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and file_sha256(path) == file.sha256
