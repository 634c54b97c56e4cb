"""Immutable versions of the weights, their states, and which one is live.

    registry     the rules: reserve, publish, promote, roll back, mark, refresh the reference, prune
    catalogue    reading: what there is, what is live, what came before it, whether the files are those of the manifest
    genesis      the first policy version, made from the base model
    summary      one row a version for people, also of one that is damaged
    manifest     what a version is, and how it fares
    store        what the rules need of a place that holds versions

    folder_store    that place on a file system
    object_store    that place in a bucket, over `bucket` (objects, conditions, errors) and `local_copies`
    copying         from the one into the other

Nothing else knows where versions lie.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_online.config import VersionsSettings
from rlhf_online.errors import ConfigError
from rlhf_online.versions.folder_store import COPIES, FolderStore
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.store import VersionStore

if TYPE_CHECKING:
    from rlhf_online.versions.bucket import Bucket


def open_registry(
    root: Path,
    guard: Callable[[], AbstractContextManager[None]] = nullcontext,
    settings: VersionsSettings = VersionsSettings(),  # noqa: B008
    *,
    actor: str = "",
) -> Registry:
    """The registry of the versions below `root`, or in the folder or bucket that `settings` name (of a bucket's there
    are copies below `root`).

    See `FolderStore` for `guard`, `Registry` for `actor`. Raises ConfigError for a bucket's URL that leads nowhere.
    """
    return Registry(_store(root, guard, settings), actor)


def _store(root: Path, guard: Callable[[], AbstractContextManager[None]], settings: VersionsSettings) -> VersionStore:
    if not settings.in_bucket:
        store = FolderStore(Path(settings.url.removeprefix("file:") or root), guard)
        store.settle()
        return store
    bucket = open_bucket(settings.url)
    from rlhf_online.versions.object_store import ObjectStore

    return ObjectStore(bucket, root / COPIES, round(settings.cache_gib * (1 << 30)), guard)


def open_bucket(url: str) -> "Bucket":
    """The bucket that `versions.url` names. Raises ConfigError for a URL that leads nowhere."""
    try:
        from rlhf_online.versions.bucket import Bucket
    except ModuleNotFoundError as error:
        raise ConfigError("versions.url needs the package obstore: install rlhf-online[object-store]") from error
    return Bucket(url)
