"""A version with all that it goes back to: what they learned from, and who is in it.

    policy-000012 ─parent─▶ policy-000011 ─parent─▶ … ─▶ the first
         │ reward_version          │
         ▼                         ▼
    reward-000007 ─after──▶ reward-000006 ─after──▶ … ─▶ the first

A policy learns from answers and, through their scores, from every vote that its reward version has learned from; and so
did each version before it. Where a reward version has no record of what it went on from, it is taken to be the one
before it by number: the reward model is one line.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from rlhf_online.attribution.trained_on import AnswerUsed, TrainedOn, VoteUsed, key, parse
from rlhf_online.errors import FileDamaged, UnknownVersion, VersionCorrupt
from rlhf_online.versions.catalogue import Catalogue

UNRECORDED = "not recorded: an earlier release made it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """`records`: what the version, and each that it goes back to, learned from itself; reward versions first, oldest
    first. `unknown`: of which of them nobody can tell, and why."""

    records: dict[str, TrainedOn]
    unknown: dict[str, str]

    def votes(self) -> dict[str, tuple[VoteUsed, str]]:
        """Every vote that was learned from, with the first version that did, by event id."""
        found: dict[str, tuple[VoteUsed, str]] = {}
        for version, record in self.records.items():
            for vote in record.votes:
                found.setdefault(vote.event_id, (vote, version))
        return found

    def answers(self) -> dict[tuple[str, int], tuple[AnswerUsed, str]]:
        """Every answer of the log that was, likewise, by completion id and index."""
        found: dict[tuple[str, int], tuple[AnswerUsed, str]] = {}
        for version, record in self.records.items():
            for item in record.answers:
                found.setdefault((item.completion_id, item.index), (item, version))
        return found


class Lineages:
    """Of one catalogue, for one question: each manifest and record is read once, and what is published meanwhile is not
    seen."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.versions = sorted(catalogue.versions(), key=lambda name: not name.startswith("reward-"))
        """None before what it goes back to."""
        self._first = next((name for name in self.versions if name.startswith("policy-")), "")
        self._known: dict[str, TrainedOn | str] = {}

    def of(self, version: str) -> Lineage:
        """Raises UnknownVersion, OSError."""
        self._catalogue.status(version)
        found, left = {version}, [version]
        while left:
            new = set(self.before(left.pop())) - found
            found |= new
            left += new
        said = {name: self.record(name) for name in sorted(found, key=lambda name: (name.startswith("policy"), name))}
        return Lineage(
            records={name: record for name, record in said.items() if isinstance(record, TrainedOn)},
            unknown={name: record for name, record in said.items() if isinstance(record, str)},
        )

    def before(self, version: str) -> tuple[str, ...]:
        """What the version goes back to at once."""
        if version.startswith("reward-"):
            record = self.record(version)
            if isinstance(record, TrainedOn):
                return (record.after,) if record.after else ()
            earlier = [name for name in self.versions if name.startswith("reward-") and name < version]
            return tuple(earlier[-1:])
        with suppress(VersionCorrupt, UnknownVersion):
            manifest = self._catalogue.manifest(version)
            return tuple(filter(None, (manifest.parent, manifest.reward_version)))
        return ()

    def record(self, version: str) -> TrainedOn | str:
        """What it learned from itself, or why nobody knows. Raises OSError."""
        if version not in self._known:
            try:
                text = self._catalogue.store.read(key(version))
                if text is None:
                    self._known[version] = TrainedOn() if version == self._first else UNRECORDED  # the base model
                else:
                    self._known[version] = parse(self._catalogue.store, version, text)
            except FileDamaged as error:
                self._known[version] = str(error)
        return self._known[version]

    def naming(self, word: str) -> Iterator[tuple[str, TrainedOn]]:
        """The versions whose own records hold the word (an id, or a person's hash). Raises OSError."""
        quoted = json.dumps(word)
        for version in self.versions:
            with suppress(FileDamaged):
                if quoted in (self._catalogue.store.read(key(version)) or ""):
                    record = self.record(version)
                    if isinstance(record, TrainedOn):
                        yield version, record
