"""What a power loss leaves of a folder: records which contents and names are surely on disk, and makes the folders that
could be found after it.

The file system is the real one; `os.fsync` and `os.fdatasync` only take note. A file's content is certain once
the file was fsynced, a name once its folder was; of all that happened since, any part may be there or not. So at every
call that changes names or makes something certain, a moment is kept, and `Moment.losses` are the folders that a power
loss right then could leave: nothing but what is certain; all names with the contents that are certain, or torn ones;
each name alone, or missing alone; and everything, as after a kill.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

_LISTENED = ("rename", "replace", "link", "unlink", "rmdir", "mkdir", "truncate", "ftruncate", "pwrite")
_PRODUCT = ("rlhf_online.", "services.")
_HELPERS = ("rlhf_online.durable:fsync_file", "rlhf_online.durable:fsync_folder")
BEGINNING, AFTER_THE_CALL = "at the beginning", "after the call"

Names = dict[int, dict[str, int]]
"""Folder's inode → name → inode."""
Tree = tuple[tuple[str, bytes | None], ...]
"""Path → content; None for a folder."""


class _Disk(NamedTuple):
    """`contents` of a file that is not there: empty; `names` of a folder: it is none, or has none."""

    folders: frozenset[int]
    names: Names
    contents: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Moment:
    """Before the call `what`; `promised` counts the promises that were made by then."""

    what: str
    promised: int
    root: int
    certain: _Disk
    now: _Disk

    @property
    def surely(self) -> Tree:
        """What is there after the power went, and perhaps nothing more."""
        folders = self.now.folders | self.certain.folders
        return tuple(_tree(self.root, folders, self.certain.names, self.certain.contents))

    @property
    def alive(self) -> Tree:
        """What is there as long as the power is."""
        return tuple(_tree(self.root, self.now.folders, self.now.names, self.now.contents))

    def losses(self) -> Iterator[tuple[str, Tree]]:
        """What may be found after it went, each tree once."""
        seen: set[Tree] = set()
        for how, names, contents in self._variants():
            tree = tuple(_tree(self.root, self.now.folders | self.certain.folders, names, contents))
            if tree not in seen:
                seen.add(tree)
                yield f"{self.what}: {how}", tree

    def killed(self, folder: Path) -> "_Disk":
        """Make `folder` what a process that is killed at this moment leaves; what of it is certain."""
        found: dict[int, Path] = {}
        _lay_out(self.root, self.now, folder, found)
        named = {inode for entries in self.certain.names.values() for inode in entries.values()}
        lost = {inode: -inode for inode in {self.root, *named, *self.certain.names, *self.certain.contents}}

        def there(inode: int) -> int:
            return found[inode].stat().st_ino if inode in found else lost[inode]

        return _Disk(
            frozenset(there(inode) for inode in self.certain.folders if inode in found or inode in lost),
            {
                there(inode): {name: there(each) for name, each in entries.items()}
                for inode, entries in self.certain.names.items()
            },
            {there(inode): content for inode, content in self.certain.contents.items()},
        )

    def _variants(self) -> Iterator[tuple[str, Names, Mapping[int, bytes]]]:
        certain, now = self.certain, self.now
        yield "only what is certain", certain.names, certain.contents
        yield "all names, contents that are certain", now.names, certain.contents
        yield "all names, torn contents", now.names, self._torn()
        yield "all contents, names that are certain", certain.names, {**certain.contents, **now.contents}
        yield "everything", now.names, now.contents
        changes = list(self._changes())
        for number, change in enumerate(changes):
            others = changes[:number] + changes[number + 1 :]
            said = ", ".join(name for _, name, _ in change)
            yield f"of the names only {said}", _applied(certain.names, [change]), certain.contents
            yield f"of the names all but {said}", _applied(certain.names, others), certain.contents

    def _torn(self) -> dict[int, bytes]:
        """Half of what was added to a file since it was certain; half of a file that was written over."""
        torn = dict(self.certain.contents)
        for inode, content in self.now.contents.items():
            before = self.certain.contents.get(inode, b"")
            if content != before:
                kept = len(before) if content.startswith(before) else 0
                torn[inode] = content[: kept + (len(content) - kept) // 2]
        return torn

    def _changes(self) -> Iterator[list[tuple[int, str, int | None]]]:
        """Names that are not certain: folder, name, inode (None: removed). What one rename did is one change."""
        moved: dict[int, list[tuple[int, str, int | None]]] = {}
        for folder in self.now.names.keys() | self.certain.names.keys():
            before, after = self.certain.names.get(folder, {}), self.now.names.get(folder, {})
            for name in sorted(before.keys() | after.keys()):
                if before.get(name) != after.get(name):
                    inode = after.get(name, before.get(name))
                    assert inode is not None
                    moved.setdefault(inode, []).append((folder, name, after.get(name)))
        yield from moved.values()


class Recording:
    """What happens under `root` while it is `listening`. The fsyncs that the line `lies` asks for do nothing.

    Of what is there when it begins all is certain, or what `certain` says. `only_promises`: no other moments are kept.
    """

    def __init__(
        self, root: Path, lies: str = "", certain: _Disk | None = None, *, only_promises: bool = False
    ) -> None:
        self._only_promises = only_promises
        self.moments: list[Moment] = []
        self.fsyncs: set[str] = set()
        """The lines that asked for one."""
        self.callers: set[str] = set()
        """Functions of the product that were running at any call that was listened to, "module:Class.function"."""
        self.lied_at: int | None = None if lies else 0
        """The first moment after a lie."""
        self._root = root
        self._lies = lies
        self._promised = 0
        self._held: dict[int, int] = {}
        """Inode → descriptor: an inode that is open is given to no other file."""
        self._certain = certain or self._look()
        self._keep(BEGINNING)

    def promise(self) -> None:
        """What was done by now must never be lost."""
        self._promised += 1
        self._keep(AFTER_THE_CALL)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen while the block runs."""
        with ExitStack() as patched:
            for name in _LISTENED:
                patched.enter_context(mock.patch.object(os, name, self._heard(getattr(os, name))))
            for name in ("fsync", "fdatasync"):
                patched.enter_context(mock.patch.object(os, name, self._synced(getattr(os, name))))
            yield
        for descriptor in self._held.values():
            os.close(descriptor)

    def _heard(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if not self._only_promises:
                self._keep(f"before {real.__name__} in {self._caller()}")
            return real(*args, **options)

        return call

    def _synced(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: int) -> None:
            caller = self._caller()
            if not self._only_promises:
                self._keep(f"before {real.__name__} in {caller}")
            self.fsyncs.add(caller)
            if caller == self._lies:
                self.lied_at = len(self.moments) if self.lied_at is None else self.lied_at
                return
            inode, now = os.fstat(descriptor).st_ino, self._look()
            if inode in now.folders:
                names = {**self._certain.names, inode: now.names[inode]}
                self._certain = self._certain._replace(names=names, folders=self._certain.folders | now.folders)
            elif inode in now.contents:
                contents = {**self._certain.contents, inode: now.contents[inode]}
                self._certain = self._certain._replace(contents=contents)

        return call

    def _keep(self, what: str) -> None:
        inode = self._root.stat().st_ino
        self.moments.append(Moment(what, self._promised, inode, self._certain, self._look()))

    def _look(self) -> _Disk:
        names: Names = {}
        contents: dict[int, bytes] = {}
        folders = [(self._root.stat().st_ino, str(self._root))]
        while folders:
            folder, path = folders.pop()
            self._hold(folder, path)
            entries = list(os.scandir(path))
            names[folder] = {entry.name: entry.inode() for entry in entries}
            folders += [(entry.inode(), entry.path) for entry in entries if entry.is_dir()]
            for entry in entries:
                if entry.is_file():
                    self._hold(entry.inode(), entry.path)
                    contents[entry.inode()] = Path(entry.path).read_bytes()
        return _Disk(frozenset(names), names, contents)

    def _hold(self, inode: int, path: str) -> None:
        if inode not in self._held:
            self._held[inode] = os.open(path, os.O_RDONLY)

    def _caller(self) -> str:
        """The line of the product that called; all functions that were running are noted."""
        frame, caller = inspect.currentframe(), ""
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            if module.startswith(_PRODUCT):
                function = f"{module}:{frame.f_code.co_qualname.split('.<locals>')[0]}"
                self.callers.add(function)
                if not caller and function not in _HELPERS:
                    caller = f"{function}, line {frame.f_lineno}"
            frame = frame.f_back
        return caller


def recorded(
    root: Path,
    write: Callable[[Path], Iterator[None]],
    *,
    lies: str = "",
    certain: _Disk | None = None,
    only_promises: bool = False,
) -> Recording:
    """Run `write`, which yields whenever what it has done by then is promised."""
    recording = Recording(root, lies, certain, only_promises=only_promises)
    with recording.listening():
        for _ in write(root):
            recording.promise()
    return recording


def lay_out(tree: Tree, folder: Path) -> Path:
    """Make `folder` hold the tree."""
    folder.mkdir()
    for path, content in tree:
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
    return folder


def _lay_out(inode: int, disk: _Disk, path: Path, found: dict[int, Path]) -> None:
    """Make `path` what `inode` is, with its hard links; where each is then found."""
    if inode in disk.folders:
        path.mkdir()
        for name, below in disk.names[inode].items():
            _lay_out(below, disk, path / name, found)
    elif inode in found:
        path.hardlink_to(found[inode])
    else:
        path.write_bytes(disk.contents[inode])
    found[inode] = path


def _applied(names: Names, changes: list[list[tuple[int, str, int | None]]]) -> Names:
    result = {folder: dict(entries) for folder, entries in names.items()}
    for folder, name, inode in (each for change in changes for each in change):
        entries = result.setdefault(folder, {})
        if inode is None:
            entries.pop(name, None)
        else:
            entries[name] = inode
    return result


def _tree(
    folder: int, folders: frozenset[int], names: Names, contents: Mapping[int, bytes], path: str = ""
) -> Iterator[tuple[str, bytes | None]]:
    for name, inode in sorted(names.get(folder, {}).items()):
        below = f"{path}{name}"
        yield below, None if inode in folders else contents.get(inode, b"")
        if inode in folders:
            yield from _tree(inode, folders, names, contents, f"{below}/")
