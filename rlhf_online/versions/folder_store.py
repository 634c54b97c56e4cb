"""Versions in a folder.

    versions/
      policy-000012/       manifest.json and the files that it names with SHA-256 and size
      reward-000003/
      states/policy-000012.json    {"state", "reason", "by", "gate", "changed_ms", …}
      live/policy          the name of the live version, replaced atomically
      references           the policy versions that KL was counted from, the one in use last; none: the first version
      learning             whether learning is paused (`rlhf_online.learning`)
      reward-weights       what each objective counts, if an operator has chosen (`rewards.weights`)
      audiences            other sets of weights, by name (`rewards.audiences`)
      reward-rules         what answers are paid for by rules, if there are any (`rewards.rules`)
      reports/policy-000012.json   what the gate found of it, for people (`reports`)
      votes/…              what became of people's votes (`feedback.outcomes`)
      trained/…            what each version has learned from (`attribution.trained_on`)
      next/policy          the next number to give: a number is never given twice
      lock                 held while a record is compared and replaced
      .staging-…           files of a version that is being written

A version is staged in a hidden folder beside its place, made durable, and renamed: it is there wholly or not at all.
Records are files; reading needs no lock.
"""

import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rlhf_online import locks
from rlhf_online.durable import fsync_folder, fsync_tree, make_folder, write_bytes
from rlhf_online.errors import FileDamaged, UnknownVersion
from rlhf_online.versions.store import ManifestOf, Stray, described

MANIFEST = "manifest.json"
COPIES = "copies"
"""A folder that is no record: local copies of a bucket's versions."""
GRACE_S = 86_400
"""Age from which on what is staged counts as left behind."""


class FolderStore:
    """See `store.VersionStore`. Every change is made within `guard()`, which may raise to forbid it: the trainer's
    lease does (`training.lease`). Large because a store is what `VersionStore` asks of it."""

    def __init__(self, root: Path, guard: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self.root = root
        self._guard = guard
        self._own = uuid.uuid4().hex[:8]  # what this one stages, no other writes into

    def settle(self) -> None:
        """Make certain what a process left here that was killed, before anything is built upon it. Raises OSError."""
        for folder in (
            self.root,
            *(self.root / records for records in ("live", "next", "probes", "reports", "states", "trained", "votes")),
        ):
            if folder.is_dir():
                fsync_folder(folder)

    # Versions

    def versions(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return [path.name for path in self.root.iterdir() if self.contains(path.name)]

    def contains(self, version: str) -> bool:
        leaves = "/" in version or version.startswith(".")
        return not leaves and (self.root / version / MANIFEST).is_file()

    def manifest(self, version: str) -> bytes:
        return (self.materialise(version) / MANIFEST).read_bytes()

    def files(self, version: str) -> frozenset[str]:
        folder = self.materialise(version)
        return frozenset(str(path.relative_to(folder)) for path in _files(folder)) - {MANIFEST}

    def materialise(self, version: str) -> Path:
        """The version's own folder."""
        if not self.contains(version):
            raise UnknownVersion(f"no version {version!r}: `rlhf-online versions list` shows them")
        return self.root / version

    def file(self, version: str, path: str) -> Path:
        if not (found := self.materialise(version) / path).is_file():
            raise FileNotFoundError(f"{version} has no file {path}")
        return found

    def mend(self, version: str) -> bool:
        """The folder is the version, and no copy of it."""
        return False

    def stage(self, version: str) -> Path:
        folder = self.root / f".staging-{version}-{self._own}"
        with self._guard():
            for old in self.root.glob(f".staging-{version}-*"):
                shutil.rmtree(old, ignore_errors=True)
            make_folder(self.root)
            folder.mkdir()
        return folder

    def put(self, version: str, staged: Path, manifest: ManifestOf) -> None:
        with ThreadPoolExecutor(1) as thread:
            # Files that were just written are hashed from memory while the disk takes them.
            files = thread.submit(described, staged)
            fsync_tree(staged)
        write_bytes(staged / MANIFEST, manifest(files.result()))
        with self._guard():
            if not self.contains(version):
                staged.rename(self.root / version)
                fsync_folder(self.root)

    def discard_files(self, version: str) -> None:
        folder = self.materialise(version)
        with self._guard():
            files = _files(folder)
            for path in files:
                if path != folder / MANIFEST:
                    path.unlink()
            for inside in {path.parent for path in files}:
                fsync_folder(inside)

    def strays(self) -> list[Stray]:
        """Folders that were staged a day ago."""
        old = [path for path in self.root.glob(".staging-*") if path.stat().st_mtime < time.time() - GRACE_S]
        return [Stray(path.name, sum(file.stat().st_size for file in _files(path))) for path in old]

    def remove(self, strays: Sequence[Stray]) -> None:
        with self._guard():
            for stray in strays:
                shutil.rmtree(self.root / stray.key, ignore_errors=True)

    # Records

    def read(self, key: str) -> str | None:
        path = self.root / key
        try:
            return path.read_text(errors="replace")
        except FileNotFoundError:
            return None
        except (PermissionError, IsADirectoryError) as error:
            raise FileDamaged(f"{path} cannot be read ({error.strerror}): let this user read it") from error

    def records(self) -> list[str]:
        """The keys of all records."""
        places = [path for path in self.root.iterdir() if not path.name.startswith(".") and path.name != COPIES]
        folders = [path for path in places if path.is_dir() and not self.contains(path.name)]
        files = [path for path in places if path.is_file() and path.name != "lock"]
        found = [*files, *(path for of in folders for path in _files(of))]
        # A write that was killed leaves its file aside, under a hidden name.
        return [str(path.relative_to(self.root)) for path in found if not path.name.startswith(".")]

    def place(self, key: str) -> str:
        return str(self.root / key)

    def replace(self, key: str, value: str, *, expected: str | None) -> bool:
        make_folder(self.root)
        with self._guard(), locks.acquire(self.root / "lock"):
            if self.read(key) != expected:
                return False
            write_bytes(self.root / key, value.encode())
            return True


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
