"""A registry that knows how often it was asked."""

from pathlib import Path

from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.manifest import Kind
from rlhf_online.versions.registry import Registry


class Watched(Registry):
    """`looks` counts the questions which version is live."""

    def __init__(self, root: Path) -> None:
        super().__init__(FolderStore(root))
        self.looks = 0

    def live(self, kind: Kind) -> str | None:
        self.looks += 1
        return super().live(kind)
