"""A copy of the state folder, made while the services run, from which everything goes on; and its way back.

    checkpoints ▶ versions ▶ what follows the log ▶ log ▶ secrets

What is copied first may name what is copied later, never the other way round: a checkpoint names versions and a place
in the log, a version's record its folder, what follows the log the records that it has seen. All of these only grow,
so each later copy holds what an earlier one names. Within checkpoints the newest comes with all that its manifest
names, compared with their SHA-256; if the trainer clears one away meanwhile, the next newest does. Within the log the
counts come before the records that they count: a count that is too low is what a power loss leaves, too.

Not copied: what is in a bucket (its own copies are made there), a spool whose log is in Kafka (its numbers go on beside
the copy, and would be given twice), and what is written anew at each start (`run`, `status`, `logs`).

`backup.json` in the copy names each file with its SHA-256 and size; it is written last, and a restore compares all.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rlhf_online.durable import file_sha256, fsync_folder, fsync_tree, make_folder, write_json
from rlhf_online.errors import BackupFailed, InvalidInput
from rlhf_online.events import now_ms
from rlhf_online.state import FINGERPRINT, KEYS, OPERATOR_TOKEN, PERSON_SALT, StateDir

CONTENTS = "backup.json"
FORMAT = 1
COUNTS = ("identity", "committed", "shipped.json", "readers", FINGERPRINT)
"""Of a log: what is copied before its segments."""
SKIPPED = ("lock", "copies")
"""Of the versions: what belongs to a process or to a bucket."""
TRIES = 5


@dataclass(frozen=True, slots=True)
class Copied:
    """`checkpoint` is the number of the one that was copied, −1 without any."""

    files: int
    size: int
    checkpoint: int


def backup(state: StateDir, target: Path, *, log: Path | None, versions: bool) -> Copied:
    """Copy the state into the new folder `target`. `log` is the log's folder, None where it is in Kafka; `versions`
    says whether they are in the state folder.

    Raises InvalidInput for a target that is there, BackupFailed where something cannot be read or written.
    """
    if target.exists():
        raise InvalidInput(f"{target} is there already: name a folder that is not")
    if not state.root.is_dir():
        raise InvalidInput(f"no state folder at {state.root}: name it with --state")
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        make_folder(aside, mode=0o700)
        checkpoint = _newest_checkpoint(state.checkpoints, aside / "checkpoints")
        if versions:
            _tree(state.versions, aside / "versions", first=("states", "live", "references"), last=("next",))
            _drop_discarded(aside / "versions", state.versions)
        for folder in (state.conversations, state.annotation):
            _tree(folder, aside / folder.name)
        if log is not None:
            _tree(log, aside / "log", first=COUNTS)
        for name in (OPERATOR_TOKEN, PERSON_SALT, KEYS, state.reward_weights.name):
            _file(state.root / name, aside / name)
        contents = {
            str(path.relative_to(aside)): {"sha256": file_sha256(path), "size": path.stat().st_size}
            for path in _files(aside)
        }
        values = {"format": FORMAT, "made_ms": now_ms(), "checkpoint": checkpoint, "files": contents}
        write_json(aside / CONTENTS, values)
        fsync_tree(aside)
        aside.rename(target)
        fsync_folder(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise BackupFailed(
            f"{target} cannot be made ({error}): make room there, and let this user read the state"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Copied(len(contents), sum(item["size"] for item in contents.values()), checkpoint)


def restore(source: Path, state: StateDir) -> Copied:
    """Make the backup the state folder, which must not be there, or be empty. Every file is compared with its SHA-256.

    Raises InvalidInput, BackupFailed; then there is no state folder.
    """
    state = StateDir(state.root.absolute())
    if state.root.is_file():
        raise InvalidInput(f"{state.root} is a file: name a folder with --state")
    if state.root.exists() and any(state.root.iterdir()):
        raise InvalidInput(f"{state.root} is not empty: move it away, or name another folder with --state")
    contents = _contents(source)
    aside = state.root.with_name(f".{state.root.name}.{os.getpid()}")
    try:
        make_folder(aside, mode=0o700)
        for name, item in contents["files"].items():
            path = aside / name
            make_folder(path.parent, mode=0o700)
            shutil.copyfile(source / name, path)
            path.chmod(0o600)
            if path.stat().st_size != item["size"] or file_sha256(path) != item["sha256"]:
                raise BackupFailed(f"{source / name} is not what was backed up: restore from another copy")
        fsync_tree(aside)
        if state.root.is_dir():
            state.root.rmdir()
        aside.rename(state.root)
        fsync_folder(state.root.parent)
    except OSError as error:
        raise BackupFailed(
            f"{source} cannot be restored to {state.root} ({error}): make room, and let this user write"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    sizes = [item["size"] for item in contents["files"].values()]
    return Copied(len(sizes), sum(sizes), contents["checkpoint"])


def _contents(source: Path) -> dict:
    """What `backup.json` says. Raises InvalidInput where it is none of ours, or leads out of the backup."""
    try:
        values = json.loads((source / CONTENTS).read_text())
        known = values["format"] == FORMAT
        inside = all((source / name).resolve().is_relative_to(source.resolve()) for name in values["files"])
        fit = all({"sha256", "size"} <= item.keys() for item in values["files"].values()) and "checkpoint" in values
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{source} is no backup: it has no {CONTENTS} that can be read ({error})") from error
    if not (known and inside and fit):
        raise InvalidInput(f"{source / CONTENTS} is not of this release, or names what is outside of the backup")
    return values


def _newest_checkpoint(folder: Path, to: Path) -> int:
    """Copy the newest checkpoint that is whole, with what its manifest names; its number, −1 if there is none.

    Raises OSError, BackupFailed if there are checkpoints and none could be copied whole.
    """
    tried = 0
    for _ in range(TRIES):
        numbers = sorted(int(path.parent.name) for path in folder.glob("[0-9]*/manifest.json"))
        for number in reversed(numbers):
            tried += 1
            if _checkpoint(folder, number, to):
                return number
            shutil.rmtree(to, ignore_errors=True)
        if not numbers:
            return -1
    raise BackupFailed(f"none of the {tried} checkpoints in {folder} that were tried is whole: see the trainer's log")


def _checkpoint(folder: Path, number: int, to: Path) -> bool:
    """Whether all of it came, unchanged: the trainer may have removed it meanwhile."""
    own = f"{number:06d}"
    try:
        manifest = json.loads((folder / own / "manifest.json").read_text())
        named = {f"{own}/{name}": item for name, item in manifest["files"].items()}
        for kind in ("ledger", "answers"):
            named |= {f"{kind}/{name}": item for name, item in manifest.get(kind, {}).items()}
        for name, item in named.items():
            _file(folder / name, to / name)
            if not (to / name).is_file() or file_sha256(to / name) != item["sha256"]:
                return False
            _file(folder / f"{name}.parity", to / f"{name}.parity")
        _file(folder / own / "manifest.json", to / own / "manifest.json")
        return (to / own / "manifest.json").is_file()
    except (ValueError, KeyError, TypeError):
        return False


def _tree(folder: Path, to: Path, *, first: tuple[str, ...] = (), last: tuple[str, ...] = ()) -> None:
    """Copy what is in the folder: `first` its entries of these names, then the others, `last` these."""
    if not folder.is_dir():
        return
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name not in SKIPPED}
    order = [*first, *sorted(names - {*first, *last}), *last]
    for name in (name for name in order if name in names):
        if (folder / name).is_dir():
            _tree(folder / name, to / name)
        elif name.endswith(".sqlite"):
            _database(folder / name, to / name)
        elif not name.endswith((".sqlite-wal", ".sqlite-shm")):
            _file(folder / name, to / name)


def _drop_discarded(versions: Path, live: Path) -> None:
    """Of a version whose files were discarded while they were copied, keep the manifest alone, as the store does."""
    for manifest in versions.glob("*/manifest.json"):
        own = live / manifest.parent.name
        for path in _files(manifest.parent):
            if not (own / path.relative_to(manifest.parent)).exists():
                path.unlink()


def _file(path: Path, to: Path) -> None:
    """Copy a file as it is now; one that is gone was removed meanwhile, and is not missed."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(path, to)
    except FileNotFoundError:
        to.unlink(missing_ok=True)


def _database(path: Path, to: Path) -> None:
    """Copy a SQLite database that others write to, as of one moment. Raises sqlite3.Error."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with (
        closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as live,
        closing(sqlite3.connect(to)) as copy,
    ):
        live.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
