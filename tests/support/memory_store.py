"""Versions in memory: all that the registry needs of a store, and nothing else."""

import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

from rlhf_online.errors import UnknownVersion
from rlhf_online.versions.store import ManifestOf, Stray, described


class MemoryStore:
    """See `rlhf_online.versions.store.VersionStore`. Local folders are made below `scratch`."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._manifests: dict[str, bytes] = {}
        self._files: dict[str, dict[str, bytes]] = {}
        self._records: dict[str, str] = {}
        self._lock = threading.Lock()

    def versions(self) -> list[str]:
        return list(self._manifests)

    def contains(self, version: str) -> bool:
        return version in self._manifests

    def manifest(self, version: str) -> bytes:
        self._check(version)
        return self._manifests[version]

    def files(self, version: str) -> frozenset[str]:
        self._check(version)
        return frozenset(self._files[version])

    def materialise(self, version: str) -> Path:
        self._check(version)
        folder = Path(mkdtemp(dir=self._scratch, prefix=f"{version}-"))
        for name, content in self._files[version].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    def file(self, version: str, path: str) -> Path:
        if not (found := self.materialise(version) / path).is_file():
            raise FileNotFoundError(path)
        return found

    def mend(self, version: str) -> bool:
        return False

    def stage(self, version: str) -> Path:
        return Path(mkdtemp(dir=self._scratch, prefix=f"staged-{version}-"))

    def put(self, version: str, staged: Path, manifest: ManifestOf) -> None:
        if version not in self._manifests:
            paths = [path for path in staged.rglob("*") if path.is_file()]
            self._files[version] = {str(path.relative_to(staged)): path.read_bytes() for path in paths}
            self._manifests[version] = manifest(described(staged))

    def discard_files(self, version: str) -> None:
        self._check(version)
        self._files[version] = {}

    def strays(self) -> list[Stray]:
        return []

    def remove(self, strays: Sequence[Stray]) -> None:
        pass

    def read(self, key: str) -> str | None:
        return self._records.get(key)

    def place(self, key: str) -> str:
        return key

    def replace(self, key: str, value: str, *, expected: str | None) -> bool:
        with self._lock:
            if self._records.get(key) != expected:
                return False
            self._records[key] = value
            return True

    def _check(self, version: str) -> None:
        if version not in self._manifests:
            raise UnknownVersion(f"no version {version!r}")
