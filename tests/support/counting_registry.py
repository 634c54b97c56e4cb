"""A registry that counts how often the live version is read."""

from pathlib import Path

from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.manifest import Kind
from rlhf_online.versions.registry import Registry


class CountingRegistry(Registry):
    """`reads` counts the calls of `live`."""

    def __init__(self, root: Path) -> None:
        super().__init__(FolderStore(root))
        self.reads = 0

    def live(self, kind: Kind) -> str | None:
        self.reads += 1
        return super().live(kind)
