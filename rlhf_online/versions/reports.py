"""What the gate found of each policy version, for people: a record beside its manifest, `reports/VERSION.json`.

Examples name whose they are, and may be sealed (`keystore.owned`): who reads a report opens them.

Invariants: a report is written once, and then only loses examples, which hold what people asked and were answered:
those of a conversation that was erased, and all of versions that are no longer among the newest KEPT.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

from rlhf_online.errors import FileDamaged
from rlhf_online.events import origin
from rlhf_online.versions.manifest import NAME, Kind, kind_of
from rlhf_online.versions.store import VersionStore

Report = dict[str, Any]
KEPT = 20
"""Versions whose reports keep their examples."""


def report_key(version: str) -> str:
    """The record of a version's report."""
    return f"reports/{version}.json"


def read(store: VersionStore, version: str) -> Report | None:
    """None where there is none: the gate did not judge it, or an earlier release did. Raises FileDamaged."""
    value = store.read(report_key(version))
    try:
        found = None if value is None else json.loads(value)
        if found is not None and not {"checks", "examples"} <= found.keys():
            raise ValueError("it is no report")
    except (ValueError, AttributeError) as error:
        raise FileDamaged(f"{store.place(report_key(version))} cannot be read ({error}): it tells nothing") from error
    return found


class Reports:
    """Writes those of one store; one trainer at a time."""

    def __init__(self, store: VersionStore) -> None:
        self._store = store
        self._erased: set[str] = set()

    def write(self, version: str, report: Report) -> None:
        """Keep a report, unless there is one, and take the examples out of those that are no longer among the newest.

        Raises OSError.
        """
        self._store.replace(report_key(version), json.dumps(report), expected=None)
        old = self._newest()[kind_of(version)][KEPT:]
        for name in old[:KEPT]:
            self._change(name, lambda _: False)

    def erase(self, origins: Collection[str]) -> None:
        """Take examples out that stem from these conversations (`events.origin`), or from people of whom all was erased
        (their origin is that of the conversation ""). Those of the last call are done.

        Raises OSError.
        """
        new = set(origins) - self._erased - {""}
        if new:
            for names in self._newest().values():
                for name in names[: 2 * KEPT]:
                    self._change(name, lambda example: new.isdisjoint(_origins(example)))
        self._erased = set(origins)

    def _newest(self) -> dict[Kind, list[str]]:
        """The policy versions of each kind, newest first."""
        found = defaultdict[Kind, list[str]](list)
        for name in sorted(self._store.versions(), reverse=True):
            if name.startswith("policy") and NAME.fullmatch(name):
                found[kind_of(name)].append(name)
        return found

    def _change(self, version: str, keep: Callable[[Report], bool]) -> None:
        """Keep these examples alone. One that was damaged holds whatever: it is emptied of all."""
        while (before := self._store.read(report_key(version))) is not None:
            try:
                report = read(self._store, version)
            except FileDamaged:
                report = {"checks": [], "examples": []}
            after = json.dumps(kept(report, keep)) if report is not None else before
            if after == before or self._store.replace(report_key(version), after, expected=before):
                return


def _origins(example: Report) -> list[str]:
    return [example.get("origin", ""), *(origin("", person) for person in example.get("owners", ()))]


def kept(report: Report, keep: Callable[[Report], bool]) -> Report:
    """The report without some of its examples, and without what its checks say of them."""
    places = [place for place, example in enumerate(report["examples"]) if keep(example)]
    new = {old: place for place, old in enumerate(places)}
    checks = [
        {**check, "examples": [new[place] for place in check.get("examples", ()) if place in new]}
        for check in report["checks"]
    ]
    return {**report, "checks": checks, "examples": [report["examples"][place] for place in places]}
