"""Reading what a store holds. Nothing here changes anything.

A record that is damaged (emptied, cut, overwritten, not permitted) takes nobody down: what it said follows from what
stands beside it, which is told once, and kept in `Catalogue.damaged` until the record is good again.

    live/KIND       the version that its state calls live, or that was live most recently
    states/V.json   V is live if the pointer names it; otherwise it failed: neither promoted nor gone back to
    references      what the versions say that their KL was counted from
    probes/V.json   none, so that it is computed again
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar, get_args

import structlog

from rlhf_online.durable import file_sha256
from rlhf_online.errors import FileDamaged, UnknownVersion, VersionCorrupt
from rlhf_online.versions.manifest import NAME, Kind, Manifest, ProbeSequence, State, Status, kind_of
from rlhf_online.versions.store import VersionStore

REFERENCES = "references"
LONGEST_NAME = 100
AT_ONCE = 16
"""Versions that a store is asked about at the same time."""
_LIVE = "the version that was live most recently by its state counts as live; the next promotion writes the file anew"
_STATUS = (
    "the version counts as live if the pointer names it, and otherwise as failed; bring the file back from a backup"
)
_REFERENCES = "what the versions' manifests name counts; `rlhf-online versions refresh-reference` writes the file anew"
_PROBE = "the version counts as one without a probe; that of the first one is computed anew at the next start"

T = TypeVar("T")


def live_key(kind: Kind) -> str:
    """The record that names the live version."""
    return f"live/{kind}"


def status_key(version: str) -> str:
    """The record of a version's state."""
    return f"states/{version}.json"


def probe_key(version: str) -> str:
    """The record of a probe that was computed after the version was published."""
    return f"probes/{version}.json"


class Catalogue:
    """What `store` holds."""

    def __init__(self, store: VersionStore) -> None:
        self.store = store
        self.damaged: dict[str, str] = {}
        """Records that could not be read when they were read last, and why."""
        self._manifests: dict[str, Manifest] = {}

    def live(self, kind: Kind) -> str | None:
        """Name of the live version, None before the first."""
        key = live_key(kind)
        try:
            if (name := self._record(key, lambda value: _existing(self.store, value), _LIVE)) is not None:
                return name
            known = next(self._served(kind), None)  # none, unless the record was lost
        except FileDamaged:
            known = next(self._served(kind), None)
        if known:
            self._tell(key, f"{self.store.place(key)} names no version that is there: {known} counts as live")
        return known

    def versions(self, kind: Kind | None = None) -> list[str]:
        """Names, oldest first; policies, those of audiences, rewards."""
        found = [(match[1], name) for name in self.store.versions() if (match := NAME.fullmatch(name))]
        return [name for of, name in sorted(found) if kind in (None, of)]

    def path(self, version: str) -> Path:
        """A local folder with the version's files, only to be read; fetched where they lie elsewhere.

        Raises UnknownVersion.
        """
        return self.store.materialise(version)

    def manifest(self, version: str) -> Manifest:
        """As published, and with the probe that was added since. With its probe it never changes, and is read once.

        Raises UnknownVersion, or VersionCorrupt if it cannot be read.
        """
        if (known := self._manifests.get(version)) is not None:
            return known
        manifest = _read_manifest(self.store, version)
        if not manifest.probe:
            with suppress(FileDamaged):
                manifest = replace(manifest, probe=self._record(probe_key(version), _probe, _PROBE) or ())
        if manifest.probe:
            self._manifests[version] = manifest
        return manifest

    def status(self, version: str) -> Status:
        """Raises UnknownVersion."""
        if not self.store.contains(version):
            raise UnknownVersion(f"no version {version!r}: `rlhf-online versions list` shows them")
        try:
            return self._recorded(version)
        except FileDamaged as error:
            if version == self.live(kind_of(version)):
                return Status(state="live", reason=str(error))
            return Status(state="failed", reason=str(error))

    def has_weights(self, version: str) -> bool:
        """Whether every file of the version is there; `prune` deletes them. Raises UnknownVersion or VersionCorrupt."""
        return {item.path for item in self.manifest(version).files} <= self.store.files(version)

    def verify(self, version: str, digest: Callable[[Path], str] = file_sha256) -> Manifest:
        """The manifest as it is now, after comparing every file with it; a damaged copy is fetched anew first.

        `digest` gives a file's SHA-256, and may look at what it reads; it is called in threads.
        Raises UnknownVersion or VersionCorrupt.
        """
        manifest = _read_manifest(self.store, version)
        if manifest.version != version:
            raise VersionCorrupt(f"{version}: its manifest names {manifest.version!r}")
        try:
            _compare(manifest, self.path(version), digest)
        except VersionCorrupt:
            if not self.store.mend(version):
                raise
            _compare(manifest, self.path(version), digest)
        return manifest

    # What came before

    def references(self) -> list[str]:
        """The policy versions that the KL was counted from, the one in use last; at first the first version."""
        first = self.versions("policy")[:1]
        try:
            return self._record(REFERENCES, _names, _REFERENCES) or first
        except FileDamaged:
            said: list[str] = []
            for version in self.versions("policy"):
                with suppress(VersionCorrupt):
                    said.append(self.manifest(version).reference)
            return list(dict.fromkeys([*first, *filter(None, said)]))

    def lineage(self, kind: Kind = "policy") -> list[str]:
        """The versions that led to the live one, itself last, oldest first; none that failed or was refused."""
        live = self.live(kind)
        versions = [version for version in self.versions(kind) if live is not None and version <= live]
        statuses = each(self.status, versions)
        return [
            version for version, status in zip(versions, statuses, strict=True) if status.state in ("live", "retired")
        ]

    def fallbacks(self, kind: Kind) -> list[str]:
        """The versions that one can go back to, the one that was live most recently last."""
        live = self.live(kind)
        return [version for version in self._served(kind) if version != live][::-1]

    def _served(self, kind: Kind) -> Iterator[str]:
        """Those that are or were live and have their weights, the one that was live most recently first.

        One whose state says "live" and that the pointer has left is about to be retired, and was live most recently.
        """

        def served(version: str) -> tuple[bool, int, str] | None:
            with suppress(VersionCorrupt, FileDamaged):
                status = self._recorded(version)
                if status.state in ("live", "retired"):
                    return status.state == "live", status.changed_ms, version
            return None

        for _, _, version in sorted(filter(None, each(served, self.versions(kind))), reverse=True):
            with suppress(VersionCorrupt):
                if self.has_weights(version):
                    yield version

    # Records

    def _recorded(self, version: str) -> Status:
        """What the record of its state says; a version that has none yet is a candidate. Raises FileDamaged."""
        return self._record(status_key(version), parse_status, _STATUS) or Status(state="candidate")

    def _record(self, key: str, parse: Callable[[str], T], otherwise: str) -> T | None:
        """What the record says, None if there is none. Raises FileDamaged, and tells of it and what goes on instead."""
        value = None
        try:
            value = self.store.read(key)
            found = None if value is None else parse(value)
        except FileDamaged as error:
            self._tell(key, str(error))
            raise
        except (ValueError, TypeError, UnknownVersion) as error:
            what = f"cannot be read ({error})" if value and value.strip() else "is empty"
            damage = FileDamaged(f"{self.store.place(key)} {what}: {otherwise}")
            self._tell(key, str(damage))
            raise damage from error
        self.damaged.pop(key, None)
        return found

    def _tell(self, key: str, why: str) -> None:
        if key not in self.damaged:
            structlog.get_logger().error("a record of the versions is damaged", record=key, why=why)
        self.damaged[key] = why


def _read_manifest(store: VersionStore, version: str) -> Manifest:
    try:
        return Manifest.from_json(json.loads(store.manifest(version)))
    except UnknownVersion:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise VersionCorrupt(f"{version}: its manifest cannot be read ({error})") from error


def each(ask: Callable[[str], T], versions: Sequence[str]) -> list[T]:
    """What `ask` says of each version, in their order; of many at once, since a store may be far away."""
    if len(versions) <= 1:
        return list(map(ask, versions))
    with ThreadPoolExecutor(min(AT_ONCE, len(versions))) as threads:
        return list(threads.map(ask, versions))


def _compare(manifest: Manifest, folder: Path, digest: Callable[[Path], str]) -> None:
    """Raises VersionCorrupt unless every file is as the manifest says."""
    for item in manifest.files:
        path = folder / item.path
        if not path.is_file() or path.stat().st_size != item.size:
            raise VersionCorrupt(f"{manifest.version}: {item.path} is missing or not {item.size} bytes long")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(lambda item: digest(folder / item.path), manifest.files))
    for item, sha256 in zip(manifest.files, found, strict=True):
        if sha256 != item.sha256:
            raise VersionCorrupt(f"{manifest.version}: {item.path} does not have the SHA-256 of the manifest")


def _probe(value: str) -> tuple[ProbeSequence, ...]:
    try:
        return tuple(map(ProbeSequence.from_json, json.loads(value)))
    except KeyError as error:
        raise ValueError(f"{error} is missing") from error


def _existing(store: VersionStore, value: str) -> str:
    name = value.strip()
    if len(name) > LONGEST_NAME or not store.contains(name):
        raise UnknownVersion(f"it names {name[:LONGEST_NAME]!r}, and no such version is there")
    return name


def parse_status(value: str) -> Status:
    """Raises ValueError or TypeError for what is no record of a state."""
    values = json.loads(value)
    if not isinstance(values, dict):
        raise ValueError("it is no object")
    known = {field.name for field in fields(Status)}
    status = Status(**{name: said for name, said in values.items() if name in known})  # a later release may say more
    if status.state not in get_args(State):
        raise ValueError(f"it names no state: {status.state!r}")
    return status


def _names(value: str) -> list[str]:
    names = json.loads(value)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("it is no list of versions")
    return names
