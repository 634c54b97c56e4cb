"""Immutable versions of the weights, their states, and which one is live.

    registry     the rules: reserve, publish, promote, roll back, mark, refresh the reference, prune
    catalogue    reading: what there is, what is live, what came before it, whether the files are those of the manifest
    genesis      the first policy version, made from the base model
    summary      one row a version for people, also of one that is damaged
    manifest     what a version is, and how it fares
    store        what the rules need of a place that holds versions; `folder_store` is that place on a file system

Another place (an object store) is another `VersionStore`; nothing else knows where versions lie.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.registry import Registry


def open_registry(root: Path, guard: Callable[[], AbstractContextManager[None]] = nullcontext) -> Registry:
    """The registry of the versions below `root`; see `FolderStore` for `guard`."""
    store = FolderStore(root, guard)
    store.settle()
    return Registry(store)
