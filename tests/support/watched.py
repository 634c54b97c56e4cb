"""A registry that knows how often it was asked."""

from pathlib import Path

from rlhf_online.registry import Kind, Registry


class Watched(Registry):
    """`looks` counts the questions which version is live."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.looks = 0

    def live(self, kind: Kind) -> str | None:
        self.looks += 1
        return super().live(kind)
