"""From a folder of versions into a bucket: an installation of one machine becomes one of many.

Versions go first, oldest first, then what is recorded of them, and which are live last: cut short, it is done again and
goes on. Nothing is removed from the folder.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rlhf_online.errors import InvalidInput
from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.object_store import ObjectStore
from rlhf_online.versions.registry import Registry


def copy(folder: FolderStore, bucket: ObjectStore) -> Iterator[str]:
    """Have all of `folder` in `bucket`; yields the name of each version that it has put there.

    Nobody may change either meanwhile. Raises InvalidInput for a bucket with versions that are not the folder's.
    """
    there = set(bucket.versions())
    for version in sorted(there):
        if not folder.contains(version) or folder.manifest(version) != bucket.manifest(version):
            raise InvalidInput(
                f"{version} in {bucket.place('').removesuffix('records/')} is not the one of {folder.root}: "
                "name another prefix, or empty that one"
            )
    source = Registry(folder)
    for version in source.versions():
        if version not in there:
            _put(folder, bucket, version)
            yield version
        if not folder.files(version) and bucket.files(version):
            bucket.discard_files(version)
    for key in sorted(folder.records(), key=lambda key: (key.startswith("live/"), key)):
        value = folder.read(key)
        while value is not None and (before := bucket.read(key)) != value:
            bucket.replace(key, value, expected=before)


def _put(folder: FolderStore, bucket: ObjectStore, version: str) -> None:
    staged = bucket.stage(version)
    for path in folder.files(version):
        (staged / path).parent.mkdir(parents=True, exist_ok=True)
        _link(folder.file(version, path), staged / path)
    bucket.put(version, staged, lambda _: folder.manifest(version))


def _link(path: Path, to: Path) -> None:
    """The file under another name, or a copy of it where the file system has no links."""
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)


def staging_folder(folder: FolderStore) -> "tempfile.TemporaryDirectory[str]":
    """Beside the versions, where links can be made; what a kill leaves of it is a stray."""
    return tempfile.TemporaryDirectory(prefix=".staging-copying-", dir=folder.root)
