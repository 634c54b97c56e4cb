"""Which mutants are tried, and which tests are nearest to each.

The rooms take turns, in a room its functions, and of a function one of its mutants is drawn: a long function counts no
more than a short one. Invariant: the seed, the count and the source decide; hashes of names do, so that a function that
changes changes the choice among its own mutants alone.

The nearest tests of `rlhf_online/a/b.py` are `tests/a/test_b.py`, else its package's, `tests/test_a.py`, else the
folder `tests/a`. Where that says too little, `nearest.toml` names what comes after the first of these, for a module or
a folder: the quickest first, since the first failure ends a run.
"""

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.mutants.operators import Mutant, mutants

ROOMS: dict[str, tuple[str, ...]] = {
    "algorithms": ("rlhf_online/algorithms",),
    "training": ("rlhf_online/training",),
    "votes": ("rlhf_online/training/votes",),
    "feedback": ("rlhf_online/feedback",),
    "eventlog": ("rlhf_online/eventlog",),
    "gate": ("rlhf_online/gate",),
    "preflight": ("rlhf_online/engine/preflight.py",),
    "swap": ("rlhf_online/engine/swap.py",),
    "state": ("rlhf_online/state.py",),
    "registry": ("rlhf_online/versions",),
}
"""Room by room its files and folders; what stands in a narrower room is none of a wider one."""


def room_of(module: str) -> str:
    """The narrowest room that holds the module."""
    inside = [(len(path), room) for room, paths in ROOMS.items() for path in paths if Path(module).is_relative_to(path)]
    return max(inside)[1]


def all_mutants(tree: Path, rooms: Sequence[str] = tuple(ROOMS)) -> list[Mutant]:
    """Every mutant of these rooms."""
    paths = {
        path
        for room in rooms
        for place in ROOMS[room]
        for path in ([tree / place] if place.endswith(".py") else (tree / place).rglob("*.py"))
    }
    modules = sorted(str(path.relative_to(tree)) for path in paths)
    return [
        mutant
        for module in modules
        if room_of(module) in rooms
        for mutant in mutants(module, (tree / module).read_text())
    ]


def sample(found: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """`count` of them, or all if there are fewer."""

    def drawn(name: str) -> bytes:
        return hashlib.blake2b(f"{seed} {name}".encode()).digest()

    rooms: dict[str, dict[str, list[Mutant]]] = {room: {} for room in ROOMS}
    for mutant in found:
        name = f"{mutant.module}::{mutant.function}"
        rooms[room_of(mutant.module)].setdefault(name, []).append(mutant)
    turns = [
        _in_turn(
            [sorted(functions[name], key=lambda mutant: drawn(mutant.key)) for name in sorted(functions, key=drawn)]
        )
        for functions in rooms.values()
    ]
    return _in_turn(turns)[:count]


def _in_turn(groups: Sequence[Sequence[Mutant]]) -> list[Mutant]:
    """The first of each group, then the second of each, …"""
    longest = max(map(len, groups), default=0)
    return [group[place] for place in range(longest) for group in groups if place < len(group)]


def read_nearest(path: Path) -> dict[str, list[str]]:
    return tomllib.loads(path.read_text())


def nearest(module: str, tree: Path, named: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Paths of tests, as pytest takes them; of what is named the narrowest counts."""
    inner = Path("tests", *Path(module).parts[1:])
    mirror = inner.with_name(f"test_{inner.name}")
    own = [str(mirror)] if (tree / mirror).is_file() else []
    if around := [place for place in named if Path(module).is_relative_to(place)]:
        return tuple(dict.fromkeys((*own, *named[max(around, key=len)])))
    packages = (place.with_name(f"test_{place.name}.py") for place in inner.parents[:-2])
    own += [str(path) for path in packages if (tree / path).is_file()][: 1 - len(own)]
    return tuple(own) or (str(next(folder for folder in inner.parents if (tree / folder).is_dir())),)
