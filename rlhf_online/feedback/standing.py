"""Whose votes count otherwise than most: who is doubted, capped, or alike to others; a record beside the live version.

    people    {"believed": 40, "doubted": ["3f…"], "capped": ["9a…"], "alike": [["07…", "c2…"]]}: people by their hashes

The trainer writes it after each update of the reward model, and an operator reads it; nothing acts on it.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from rlhf_online.errors import FileDamaged
from rlhf_online.versions.store import VersionStore

KEY = "people"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`believed`: how many people who compare answers are; `doubted`: who is believed less than half; `capped`: who
    gives more of the votes than their share; `alike`: groups that judge the same answers too much alike."""

    believed: int = 0
    doubted: tuple[str, ...] = ()
    capped: tuple[str, ...] = ()
    alike: tuple[tuple[str, ...], ...] = ()

    def counts(self) -> dict[str, int]:
        """How many people are what."""
        alike = sum(map(len, self.alike))
        return {
            "believed": self.believed,
            "doubted": len(self.doubted),
            "capped": len(self.capped),
            "alike": alike,
        }

    def without(self, people: Collection[str]) -> "Standing":
        """None of these is named; of a group that loses all but one nobody is."""
        groups = (tuple(person for person in group if person not in people) for group in self.alike)
        return Standing(
            believed=self.believed,
            doubted=tuple(person for person in self.doubted if person not in people),
            capped=tuple(person for person in self.capped if person not in people),
            alike=tuple(group for group in groups if len(group) > 1),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def write(store: VersionStore, standing: Standing) -> None:
    """The newest. Raises OSError."""
    text = json.dumps(standing.to_json())
    while (before := store.read(KEY)) != text and not store.replace(KEY, text, expected=before):
        pass


def forget(store: VersionStore, people: Collection[str]) -> None:
    """Name none of these who erased everything; a record that cannot be read names nobody. Raises OSError."""
    try:
        found = read(store)
    except FileDamaged:
        write(store, Standing())
        return
    if (left := found.without(people)) != found:
        write(store, left)


def read(store: VersionStore) -> Standing:
    """Nobody's where there is none. Raises OSError, FileDamaged."""
    if (text := store.read(KEY)) is None:
        return Standing()
    try:
        values = json.loads(text)
        return Standing(
            believed=values["believed"],
            doubted=tuple(values["doubted"]),
            capped=tuple(values["capped"]),
            alike=tuple(map(tuple, values["alike"])),
        )
    except (ValueError, TypeError, KeyError) as error:
        why = f"{store.place(KEY)} cannot be read ({error}): the next update of the reward model writes it anew"
        raise FileDamaged(why) from error
