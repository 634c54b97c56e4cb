"""The trainer's checkpoints: each is there wholly or not at all, and its every file is known by its SHA-256.

    checkpoints/
      lock, epoch.json, …      the lease of the one trainer that writes here (`lease`)
      ledger/  answers/        sealed files of the ledger and of the join's answers, never changed; a checkpoint names
                               those that belong to it, and those that none names are removed
      000012/                  state.json, and <part>.json + <part>.safetensors for each part (intake, policy, reward,
                           and held_back where there is such a model)
        manifest.json          number, epoch, log identity and position, SHA-256 and size of every file: written last

A save writes the files, fsyncs each, then manifest.json.tmp, fsyncs it, renames it, and fsyncs the folders. A folder
without manifest is the remains of a save that was cut short; nobody reads it, and the next save removes it. What
changes the folder is done under the lease's guard, so that a trainer that was replaced can neither commit nor delete.
A part that has not changed is hard-linked from the checkpoint before. A load verifies everything. A damaged file is
mended from its parity (`parity`), since one that checkpoints share would take them all; if it cannot be, the load falls
back to the checkpoint before. Having checkpoints of which none is good is an error, never a silent new start.

Invariant: what a checkpoint holds depends on nothing but the log, the seed and the rollouts: no time, no host, no path.
Only the epoch in the manifest counts the trainer's starts.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf_online.durable import file_sha256, fsync_file, fsync_folder, make_folder
from rlhf_online.errors import CheckpointError
from rlhf_online.eventlog.gap import Place
from rlhf_online.feedback.conversion import AnswerIds
from rlhf_online.training import parity
from rlhf_online.training.checkpoint_compat import FORMAT, upgrade_part, upgrade_state
from rlhf_online.training.lease import Lease

MANIFEST = "manifest.json"
SEALED = ("ledger", "answers")
"""Folders of files that are sealed: content-named, written once, shared by checkpoints."""


@dataclass(frozen=True, slots=True)
class CheckpointPart:
    """The state of the intake or of a model: tensors by name (there may be none), and everything else as JSON."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FileDigest:
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose files were verified. `state` is the trainer's own; parts are read when asked for."""

    folder: Path
    number: int
    state: dict[str, Any]
    sealed: dict[str, tuple[str, ...]]
    """Names of the sealed files, by folder."""
    files: dict[str, FileDigest] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether it holds the part: an earlier release, or other settings, may have written it without."""
        return f"{name}.json" in self.files

    def part(self, name: str, answer_ids: AnswerIds | None = None) -> CheckpointPart:
        """Read a part; the intake's needs `answer_ids`, for text of earlier releases. Raises CheckpointError."""
        try:
            values = json.loads((self.folder / f"{name}.json").read_text())
            path = f"{name}.safetensors"
            tensors = load_file(self.folder / path) if path in self.files else {}
            return CheckpointPart(*upgrade_part(name, values, tensors, answer_ids))
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"part {name} of checkpoint {self.folder} cannot be read: {error}") from error


class Checkpoints:
    """The checkpoints in `folder`, of which the newest `keep` stay. Only the holder of the lease may save."""

    def __init__(self, folder: Path, keep: int, lease: Lease | None = None) -> None:
        self.folder = folder
        self._keep = keep
        self._lease = lease
        self.last: Checkpoint | None = None
        """The one saved or loaded last."""
        self._digests: dict[Path, FileDigest] = {}
        """Of the sealed files that the last checkpoint names."""

    @property
    def ledger_folder(self) -> Path:
        """Where the ledger's files stand."""
        return self.folder / "ledger"

    @property
    def answers_folder(self) -> Path:
        """Where the join's answers stand."""
        return self.folder / "answers"

    def save(
        self,
        state: dict[str, Any],
        parts: Mapping[str, CheckpointPart | None],
        sealed: Mapping[str, Sequence[str]],
        log: Place,
    ) -> Checkpoint:
        """Write a checkpoint; None stands for a part that is as it was in the last one saved or loaded.

        `sealed` names the files in each folder of SEALED, `log` is where it was read up to. Raises CheckpointError,
        after which nothing has changed and the same call may be made again; Fenced.
        """
        assert self._lease is not None, "no lease, no save"
        number = max(self._numbers(), default=-1) + 1
        folder = self.folder / f"{number:06d}"
        try:
            make_folder(self.folder)
            with self._lease.guard():
                folder.mkdir()
            files = self._write(folder, state, parts)
            named = {kind: tuple(sealed.get(kind, ())) for kind in SEALED}
            paths = [self.folder / kind / name for kind, names in named.items() for name in names]
            for path in paths:
                parity.protect(path)
            for shared in {path.parent for path in paths}:
                fsync_folder(shared)
            digests = {path: self._digests.get(path) or _digest(path) for path in paths}
            manifest: dict[str, Any] = {"number": number, "epoch": self._lease.epoch, "log": asdict(log)}
            manifest["files"] = _json(files)
            for kind, names in named.items():
                manifest[kind] = _json({name: digests[self.folder / kind / name] for name in names})
            self._commit(folder, manifest, self._lease)
        except (OSError, SafetensorError) as error:
            with self._lease.guard():
                shutil.rmtree(folder, ignore_errors=True)
            raise CheckpointError(
                f"the checkpoint {folder} cannot be written ({error}): free disk space, or mend the disk; "
                "training pauses until it can"
            ) from error
        self._digests = digests
        self.last = Checkpoint(folder=folder, number=number, state=state, sealed=named, files=files)
        with self._lease.guard():
            self._prune()
        return self.last

    def load(self) -> Checkpoint | None:
        """The newest checkpoint whose every hash is right; None if there never was one.

        Raises CheckpointError if there are checkpoints and none of them is good.
        """
        log = structlog.get_logger()
        numbers = [n for n in self._numbers() if (self.folder / f"{n:06d}" / MANIFEST).is_file()]
        for number in sorted(numbers, reverse=True):
            try:
                self.last = self._verified(self.folder / f"{number:06d}")
                _settle(self.last.folder)
                return self.last
            except CheckpointError as error:
                log.error("checkpoint refused, trying the one before", number=number, why=str(error))
        if numbers:
            raise CheckpointError(
                f"none of the {len(numbers)} checkpoints in {self.folder} can be read: restore the folder from a "
                "backup, or move it away to learn everything in the log anew"
            )
        return None

    def position(self) -> dict[str, int]:
        """Before which no checkpoint that is kept needs the log: the smallest of their positions, by partition.

        A manifest that cannot be read, or says nothing, needs everything.
        """
        found: list[dict[str, int]] = []
        for number in self._numbers():
            try:
                manifest = json.loads((self.folder / f"{number:06d}" / MANIFEST).read_text())
                found.append({str(partition): int(offset) for partition, offset in manifest["log"]["position"].items()})
            except FileNotFoundError:  # the remains of a save that was cut short
                continue
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                return {}
        common = set[str].intersection(*map(set, found)) if found else set[str]()
        return {partition: min(position[partition] for position in found) for partition in common}

    def _write(
        self, folder: Path, state: dict[str, Any], parts: Mapping[str, CheckpointPart | None]
    ) -> dict[str, FileDigest]:
        files = {"state.json": _write_json(folder / "state.json", state | {"format": FORMAT})}
        for name, part in parts.items():
            if part is None:
                files |= self._carry(folder, name)
                continue
            files[f"{name}.json"] = _write_json(folder / f"{name}.json", part.values | {"format": FORMAT})
            parity.protect(folder / f"{name}.json")
            if not part.tensors:
                continue
            path = folder / f"{name}.safetensors"
            save_file(_storable(part.tensors), path)
            fsync_file(path)
            parity.protect(path)
            files[path.name] = _digest(path)
        return files

    def _carry(self, folder: Path, name: str) -> dict[str, FileDigest]:
        assert self.last is not None, f"part {name} was never saved"
        names = (f"{name}.json", f"{name}.safetensors")
        carried = {file: digest for file, digest in self.last.files.items() if file in names}
        for file in carried:
            os.link(self.last.folder / file, folder / file)
            with contextlib.suppress(FileNotFoundError):  # an earlier release wrote none
                os.link(parity.parity_of(self.last.folder / file), parity.parity_of(folder / file))
            parity.protect(folder / file)
        return carried

    def _commit(self, folder: Path, manifest: dict[str, Any], lease: Lease) -> None:
        fsync_folder(folder)
        aside = folder / f"{MANIFEST}.tmp"
        _write_json(aside, manifest)
        with lease.guard():
            aside.rename(folder / MANIFEST)
            fsync_folder(folder)
            fsync_folder(self.folder)

    def _verified(self, folder: Path) -> Checkpoint:
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            files = {name: FileDigest(**item) for name, item in manifest["files"].items()}
            sealed = {
                self.folder / kind / name: FileDigest(**item)
                for kind in SEALED
                for name, item in manifest[kind].items()
            }
            places = {folder / name: digest for name, digest in files.items()}
            for path, digest in (places | sealed).items():
                if not _is(path, digest) and not _mend(path, digest):
                    raise CheckpointError(f"{path} does not have the SHA-256 of the manifest")
            state = upgrade_state(json.loads((folder / "state.json").read_text()))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{folder} cannot be read: {error}") from error
        self._digests = sealed
        named = {kind: tuple(manifest[kind]) for kind in SEALED}
        return Checkpoint(folder=folder, number=manifest["number"], state=state, sealed=named, files=files)

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return [int(path.name) for path in self.folder.iterdir() if path.is_dir() and path.name.isdigit()]

    def _prune(self) -> None:
        complete = sorted(n for n in self._numbers() if (self.folder / f"{n:06d}" / MANIFEST).is_file())
        for number in set(self._numbers()) - set(complete[-self._keep :]):
            shutil.rmtree(self.folder / f"{number:06d}", ignore_errors=True)
        self._prune_sealed()

    def _prune_sealed(self) -> None:
        """Remove the sealed files that no checkpoint names; none at all if one of them does not say."""
        named: set[tuple[str, str]] = set()
        try:
            for number in self._numbers():
                manifest = json.loads((self.folder / f"{number:06d}" / MANIFEST).read_text())
                named |= {
                    (kind, each) for kind in SEALED for name in manifest[kind] for each in (name, name + parity.SUFFIX)
                }
        except (OSError, ValueError, KeyError, TypeError):
            return
        for kind in SEALED:
            if (self.folder / kind).is_dir():
                for path in (self.folder / kind).iterdir():
                    if (kind, path.name) not in named:
                        path.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Make a checkpoint certain before anything is built upon it: whoever wrote it may have been killed before that.

    Raises CheckpointError. The folder's own name is certain since the lease was taken, whose file stands beside it.
    """
    try:
        fsync_folder(folder)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be made durable: {error.strerror}; mend the disk") from error


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and none sharing memory with another: what safetensors takes."""
    stored: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        stored[name] = tensor.clone() if place in seen or tensor.untyped_storage().nbytes() != tensor.nbytes else tensor
        seen.add(place)
    return stored


def _write_json(path: Path, values: Any) -> FileDigest:
    data = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return FileDigest(hashlib.sha256(data).hexdigest(), len(data))


def _digest(path: Path) -> FileDigest:
    return FileDigest(file_sha256(path), path.stat().st_size)


def _is(path: Path, digest: FileDigest) -> bool:
    try:
        return _digest(path) == digest
    except FileNotFoundError:
        return False


def _mend(path: Path, digest: FileDigest) -> bool:
    mended = parity.mend(path, digest.sha256)
    if mended:
        structlog.get_logger().error("a file was damaged, and was mended: look after the disk", file=str(path))
    return mended


def _json(files: Mapping[str, FileDigest]) -> dict[str, dict[str, Any]]:
    return {name: {"sha256": digest.sha256, "size": digest.size} for name, digest in files.items()}
