"""What the registry needs of a place that holds versions: immutable folders, and small records that change.

A version is put once, wholly, and never changes; only its files may be discarded later, its manifest stays. A record is
a short text under a key. It is changed only by compare-and-set: of two writers that read the same text one wins, and
the other is told. So a store needs neither locks nor transactions over several records, only what object stores call
conditional writes; the registry's rules are built so that this is enough.

Every method may raise OSError where the place does not answer now. What changes something is durable when it returns.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rlhf_online.durable import file_sha256
from rlhf_online.versions.manifest import VersionFile

ManifestOf = Callable[[tuple[VersionFile, ...]], bytes]
"""Makes the manifest of a version with these files."""


@dataclass(frozen=True, slots=True)
class Stray:
    """What lies in a store and belongs to no version; `size` in bytes."""

    key: str
    size: int


def described(folder: Path) -> tuple[VersionFile, ...]:
    """The files in the folder as a manifest names them, by their paths; as many are hashed at once as there are cores.

    Raises OSError.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        digests = list(threads.map(file_sha256, paths))
    return tuple(
        VersionFile(path=str(path.relative_to(folder)), sha256=digest, size=path.stat().st_size)
        for path, digest in zip(paths, digests, strict=True)
    )


class VersionStore(Protocol):
    """Safe for several processes at once. Methods that take a version's name raise UnknownVersion, except `stage`,
    `put` and `contains`."""

    def versions(self) -> list[str]:
        """The names of all versions that were put, in no order."""
        ...

    def contains(self, version: str) -> bool:
        """Whether it was put."""
        ...

    def manifest(self, version: str) -> bytes:
        """The manifest as it was put."""
        ...

    def files(self, version: str) -> frozenset[str]:
        """Paths of the version's files, relative to its folder, without those that were discarded."""
        ...

    def materialise(self, version: str) -> Path:
        """A local folder with the version's files. Only read there; it may be a copy."""
        ...

    def file(self, version: str, path: str) -> Path:
        """A local file with the content of one of the version's. Raises FileNotFoundError if it has none such."""
        ...

    def mend(self, version: str) -> bool:
        """Drop what is damaged of a copy, so that `materialise` fetches it anew; False if there is nothing to drop."""
        ...

    def stage(self, version: str) -> Path:
        """An empty local folder to write the files of a new version into; what was staged for it before is dropped."""
        ...

    def put(self, version: str, staged: Path, manifest: ManifestOf) -> None:
        """Make the staged folder the version, for good, with the manifest of its files, which are read once.

        If the name is taken this changes nothing: the first one stays.
        """
        ...

    def discard_files(self, version: str) -> None:
        """Delete the version's files; name and manifest stay."""
        ...

    def strays(self) -> list[Stray]:
        """What belongs to no version, nor to one that may be about to be put: what processes left that were killed."""
        ...

    def remove(self, strays: Sequence[Stray]) -> None:
        """Remove what `strays` told."""
        ...

    def read(self, key: str) -> str | None:
        """The record under `key`, as it is, None if there is none. Raises FileDamaged for one that is not permitted."""
        ...

    def place(self, key: str) -> str:
        """Where people find the record."""
        ...

    def replace(self, key: str, value: str, *, expected: str | None) -> bool:
        """Make the record `value` if it still is `expected` (None: if there is none); False if it is not."""
        ...
