"""What checkpoints are made of: files that are known by their SHA-256, and manifests that name them."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from torch import Tensor

from rlhf_online.durable import file_sha256
from rlhf_online.training import parity

MANIFEST = "manifest.json"
SEALED = ("ledger", "answers")
"""Folders of files that are sealed: content-named, written once, shared by checkpoints."""

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FileDigest:
    sha256: str
    size: int


def places(checkpoints: Path, manifest: Manifest) -> dict[Path, FileDigest]:
    """Where the checkpoint's files stand below the folder of checkpoints.

    Raises KeyError, TypeError, AttributeError, ValueError; of a name that leads elsewhere, too.
    """
    own = checkpoints / f"{manifest['number']:06d}"
    folders = {"files": own, **{kind: checkpoints / kind for kind in SEALED}}
    found = {
        folder / name: FileDigest(**item) for kind, folder in folders.items() for name, item in manifest[kind].items()
    }
    if astray := [path for path in found if path.parent not in folders.values() or path.name == ".."]:
        raise ValueError(f"{astray[0]} is no file of a checkpoint")
    return found


def position(manifest: Manifest) -> dict[str, int]:
    """Up to where the log was read, by partition. Raises KeyError, TypeError, ValueError, AttributeError."""
    return {str(partition): int(offset) for partition, offset in manifest["log"]["position"].items()}


def same(manifest: Manifest, folder: Path) -> bool:
    """Whether the checkpoint in the folder is that one, whoever's epoch it was written under."""
    try:
        here = json.loads((folder / MANIFEST).read_text())
        return {**here, "epoch": 0} == {**manifest, "epoch": 0}
    except (OSError, ValueError, TypeError):
        return False


def described(files: Mapping[str, FileDigest]) -> dict[str, dict[str, Any]]:
    """As a manifest names them."""
    return {name: {"sha256": digest.sha256, "size": digest.size} for name, digest in files.items()}


def storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and none sharing memory with another: what safetensors takes."""
    stored: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        stored[name] = tensor.clone() if place in seen or tensor.untyped_storage().nbytes() != tensor.nbytes else tensor
        seen.add(place)
    return stored


def write_values(path: Path, values: Any) -> FileDigest:
    """Write them as JSON, the same values as the same bytes, durably but for the name. Raises OSError."""
    data = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return FileDigest(hashlib.sha256(data).hexdigest(), len(data))


def digest_of(path: Path) -> FileDigest:
    """Raises OSError."""
    return FileDigest(file_sha256(path), path.stat().st_size)


def holds(path: Path, digest: FileDigest) -> bool:
    """Whether the file is there with that content. Raises OSError."""
    try:
        return digest_of(path) == digest
    except FileNotFoundError:
        return False


def mend(path: Path, digest: FileDigest) -> bool:
    """Whether its parity could make the file that again. Raises OSError."""
    mended = parity.mend(path, digest.sha256)
    if mended:
        structlog.get_logger().error("a file was damaged, and was mended: look after the disk", file=str(path))
    return mended
