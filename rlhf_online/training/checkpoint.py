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

With a bucket (`bucket_checkpoints`) a checkpoint is there once the bucket names it, before its manifest here is
renamed: what the bucket names is what there is, and this folder is a copy, of which a load fetches what is missing.

With people's keys what it holds of their words is sealed with them (`keystore.owned`), and shredded for whoever reads
it once a key is gone.

Invariant: what a checkpoint holds depends on nothing but the log, the seed and the rollouts: no time, no host, no path.
Only the epoch in the manifest counts the trainer's starts, and the cycle's trace, where it has one, is named at random.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf_online.durable import fsync_file, fsync_folder, make_folder
from rlhf_online.errors import CheckpointError, StoreUnavailable, UndecodableEvent
from rlhf_online.eventlog.gap import Place
from rlhf_online.feedback.conversion import AnswerIds
from rlhf_online.keystore import owned
from rlhf_online.training import parity
from rlhf_online.training.bucket_checkpoints import BucketCheckpoints
from rlhf_online.training.checkpoint_compat import FORMAT, upgrade_part, upgrade_state
from rlhf_online.training.checkpoint_files import (
    MANIFEST,
    SEALED,
    FileDigest,
    Manifest,
    described,
    digest_of,
    holds,
    mend,
    places,
    position,
    same,
    storable,
    write_values,
)
from rlhf_online.training.lease import Lease

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

ASIDE = f"{MANIFEST}.tmp"
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class CheckpointPart:
    """The state of the intake or of a model: tensors by name (there may be none), and everything else as JSON."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose files were verified. `state` is the trainer's own; parts are read when asked for."""

    folder: Path
    number: int
    state: dict[str, Any]
    sealed: dict[str, tuple[str, ...]]
    """Names of the sealed files, by folder."""
    files: dict[str, FileDigest] = field(default_factory=dict)
    keys: "Keyring | None" = None

    def has(self, name: str) -> bool:
        """Whether it holds the part: an earlier release, or other settings, may have written it without."""
        return f"{name}.json" in self.files

    def part(self, name: str, answer_ids: AnswerIds | None = None) -> CheckpointPart:
        """Read a part; the intake's needs `answer_ids`, for text of earlier releases. Raises CheckpointError."""
        try:
            values = owned.open_all(json.loads((self.folder / f"{name}.json").read_text()), self.keys)
            path = f"{name}.safetensors"
            tensors = load_file(self.folder / path) if path in self.files else {}
            return CheckpointPart(*upgrade_part(name, values, tensors, answer_ids))
        except (OSError, ValueError, SafetensorError, UndecodableEvent) as error:
            raise CheckpointError(f"part {name} of checkpoint {self.folder} cannot be read: {error}") from error


class Checkpoints:
    """The checkpoints in `folder` and, if there is one, in `bucket`, of which the newest `keep` stay.

    Only the holder of the lease may save, or load with a bucket.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        lease: Lease | None = None,
        bucket: BucketCheckpoints | None = None,
        keys: "Keyring | None" = None,
    ) -> None:
        self.folder = folder
        self._keep = keep
        self._lease = lease
        self._bucket = bucket
        self._keys = keys
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
        in_bucket = [manifest["number"] for manifest in self._bucket.kept] if self._bucket else []
        number = max([*self._numbers(), *in_bucket], default=-1) + 1
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
            digests = {path: self._digests.get(path) or digest_of(path) for path in paths}
            manifest: dict[str, Any] = {"number": number, "epoch": self._lease.epoch, "log": asdict(log)}
            manifest["files"] = described(files)
            for kind, names in named.items():
                manifest[kind] = described({name: digests[self.folder / kind / name] for name in names})
            write_values(folder / ASIDE, manifest)  # a disk that is full says so before the bucket names it
            if self._bucket is not None:
                self._bucket.upload({digest.sha256: path for path, digest in places(self.folder, manifest).items()})
                self._bucket.commit(manifest, self._keep, self._lease.guard)
            self._commit(folder, self._lease)
        except (OSError, SafetensorError) as error:
            with self._lease.guard():
                shutil.rmtree(folder, ignore_errors=True)
            remedy = "" if isinstance(error, StoreUnavailable) else ": free disk space, or mend the disk"
            raise CheckpointError(
                f"the checkpoint {folder} cannot be written ({error}){remedy}; training pauses until it can"
            ) from error
        self._digests = digests
        self.last = Checkpoint(folder=folder, number=number, state=state, sealed=named, files=files, keys=self._keys)
        with self._lease.guard():
            self._prune()
        return self.last

    def load(self) -> Checkpoint | None:
        """The newest checkpoint whose every hash is right; None if there never was one.

        Raises CheckpointError if there are checkpoints and none of them is good, StoreUnavailable; OSError where the
        disk is too full to fetch one.
        """
        log = structlog.get_logger()
        if self._bucket is not None:
            self._bucket.claim()
            self._let_go_of_others()
        kept = {manifest["number"]: manifest for manifest in self._bucket.kept} if self._bucket else {}
        numbers = list(kept) or self._numbers(complete=True)
        for number in sorted(numbers, reverse=True):
            try:
                self.last = self._verified(self.folder / f"{number:06d}", kept.get(number))
                _settle(self.last.folder)
                return self.last
            except CheckpointError as error:
                log.error("checkpoint refused, trying the one before", number=number, why=str(error))
        if numbers:
            also = f" and remove {self._bucket.place}" if self._bucket is not None and kept else ""
            raise CheckpointError(
                f"none of the {len(numbers)} checkpoints in {self.folder} can be read: restore the folder from a "
                f"backup, or move it away{also} to learn everything in the log anew"
            )
        return None

    def position(self) -> dict[str, int]:
        """Before which no checkpoint that is kept needs the log: the smallest of their positions, by partition.

        A manifest that cannot be read, or says nothing, needs everything.
        """
        found = [position(manifest) for manifest in self._bucket.kept] if self._bucket else []
        for number in self._numbers():
            try:
                manifest = json.loads((self.folder / f"{number:06d}" / MANIFEST).read_text())
                found.append(position(manifest))
            except FileNotFoundError:  # the remains of a save that was cut short
                continue
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                return {}
        common = set[str].intersection(*map(set, found)) if found else set[str]()
        return {partition: min(position[partition] for position in found) for partition in common}

    def _write(
        self, folder: Path, state: dict[str, Any], parts: Mapping[str, CheckpointPart | None]
    ) -> dict[str, FileDigest]:
        sealed = owned.seal(state, self._keys) | {"format": FORMAT}
        files = {"state.json": write_values(folder / "state.json", sealed)}
        for name, part in parts.items():
            if part is None:
                files |= self._carry(folder, name)
                continue
            values = owned.seal(part.values, self._keys) | {"format": FORMAT}
            files[f"{name}.json"] = write_values(folder / f"{name}.json", values)
            parity.protect(folder / f"{name}.json")
            if not part.tensors:
                continue
            path = folder / f"{name}.safetensors"
            save_file(storable(part.tensors), path)
            fsync_file(path)
            parity.protect(path)
            files[path.name] = digest_of(path)
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

    def _commit(self, folder: Path, lease: Lease) -> None:
        fsync_folder(folder)
        with lease.guard():
            (folder / ASIDE).rename(folder / MANIFEST)
            fsync_folder(folder)
            fsync_folder(self.folder)

    def _verified(self, folder: Path, kept: Manifest | None) -> Checkpoint:
        """`kept`: what the bucket says of it."""
        try:
            manifest = kept or json.loads((folder / MANIFEST).read_text())
            files = {name: FileDigest(**item) for name, item in manifest["files"].items()}
            found = places(self.folder, manifest)
            for path, digest in found.items():
                if not holds(path, digest) and not mend(path, digest) and not self._fetched(path, digest):
                    raise CheckpointError(f"{path} does not have the SHA-256 of the manifest")
            state = upgrade_state(owned.open_all(json.loads((folder / "state.json").read_text()), self._keys))
            if kept and not (folder / MANIFEST).is_file():
                assert self._lease is not None
                write_values(folder / ASIDE, {**kept, "epoch": self._lease.epoch})
                self._commit(folder, self._lease)
        except (OSError, ValueError, TypeError, KeyError, UndecodableEvent) as error:
            if isinstance(error, StoreUnavailable) or (isinstance(error, OSError) and error.errno in FULL):
                raise  # nothing is wrong with the checkpoint
            raise CheckpointError(f"{folder} cannot be read: {error}") from error
        self._digests = {path: digest for path, digest in found.items() if path.parent != folder}
        named = {kind: tuple(manifest[kind]) for kind in SEALED}
        return Checkpoint(
            folder=folder, number=manifest["number"], state=state, sealed=named, files=files, keys=self._keys
        )

    def _let_go_of_others(self) -> None:
        """Remove from the folder what the bucket does not name, if it names any: another trainer has gone on since.

        Raises CheckpointError for a folder that has gone on without the bucket.
        """
        assert self._bucket is not None and self._lease is not None
        kept = {manifest["number"]: manifest for manifest in self._bucket.kept}
        newest = max(self._numbers(complete=True), default=-1)
        if kept and newest > max(kept):
            raise CheckpointError(
                f"the newest checkpoint in {self.folder} is {newest}, and that in the bucket {max(kept)}, so that the "
                "folder has gone on without it: move the folder away to go on from the bucket, or remove "
                f"{self._bucket.place} to go on from the folder"
            )
        with self._lease.guard():
            for number in self._numbers() if kept else ():
                folder = self.folder / f"{number:06d}"
                if number not in kept or not same(kept[number], folder):
                    shutil.rmtree(folder, ignore_errors=True)

    def _fetched(self, path: Path, digest: FileDigest) -> bool:
        """Whether the bucket has the file; then it is here. Raises CheckpointError, OSError."""
        if self._bucket is None or self._lease is None:
            return False
        make_folder(path.parent)
        aside = path.with_name(f".{path.name}.fetched")
        aside.unlink(missing_ok=True)
        try:
            self._bucket.fetch(digest.sha256, aside)
            fsync_file(aside)
            with self._lease.guard():
                aside.rename(path)
        finally:
            aside.unlink(missing_ok=True)
        parity.protect(path)
        fsync_folder(path.parent)
        return True

    def _numbers(self, *, complete: bool = False) -> list[int]:
        """Those of the folder; `complete`: with a manifest."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if path.is_dir() and path.name.isdigit()]
        return [int(path.name) for path in found if not complete or (path / MANIFEST).is_file()]

    def _prune(self) -> None:
        complete = sorted(self._numbers(complete=True))
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
