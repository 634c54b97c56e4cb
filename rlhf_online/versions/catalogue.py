"""Reading what a store holds. Nothing here changes anything."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rlhf_online.durable import file_sha256
from rlhf_online.errors import UnknownVersion, VersionCorrupt
from rlhf_online.versions.manifest import Kind, Manifest, ProbeSequence, Status
from rlhf_online.versions.store import VersionStore

REFERENCES = "references"


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

    def live(self, kind: Kind) -> str | None:
        """Name of the live version, None before the first."""
        value = self.store.read(live_key(kind))
        return None if value is None else value.strip()

    def versions(self, kind: Kind | None = None) -> list[str]:
        """Names, oldest first; policies before rewards."""
        kinds = (kind,) if kind else ("policy", "reward")
        names = self.store.versions()
        return [name for k in kinds for name in sorted(n for n in names if n.startswith(f"{k}-"))]

    def path(self, version: str) -> Path:
        """A local folder with the version's files, only to be read; fetched where they lie elsewhere.

        Raises UnknownVersion.
        """
        return self.store.materialise(version)

    def manifest(self, version: str) -> Manifest:
        """As published, and with the probe that was added since. Raises UnknownVersion, or VersionCorrupt if it cannot
        be read."""
        try:
            manifest = Manifest.from_json(json.loads(self.store.manifest(version)))
            if not manifest.probe and (added := self.store.read(probe_key(version))) is not None:
                return replace(manifest, probe=tuple(map(ProbeSequence.from_json, json.loads(added))))
            return manifest
        except UnknownVersion:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise VersionCorrupt(f"{version}: its manifest cannot be read ({error})") from error

    def status(self, version: str) -> Status:
        """Raises UnknownVersion, or VersionCorrupt if the record of its state cannot be read."""
        if not self.store.contains(version):
            raise UnknownVersion(f"no version {version!r}: `rlhf-online versions list` shows them")
        return parse_status(version, self.store.read(status_key(version)))

    def has_weights(self, version: str) -> bool:
        """Whether every file of the version is there; `prune` deletes them. Raises UnknownVersion or VersionCorrupt."""
        return {item.path for item in self.manifest(version).files} <= self.store.files(version)

    def verify(self, version: str) -> Manifest:
        """The manifest, after comparing every file with it. Raises UnknownVersion or VersionCorrupt."""
        manifest, folder = self.manifest(version), self.path(version)
        if manifest.version != version:
            raise VersionCorrupt(f"{version}: its manifest names {manifest.version!r}")
        for item in manifest.files:
            path = folder / item.path
            if not path.is_file() or path.stat().st_size != item.size:
                raise VersionCorrupt(f"{version}: {item.path} is missing or not {item.size} bytes long")
            if file_sha256(path) != item.sha256:
                raise VersionCorrupt(f"{version}: {item.path} does not have the SHA-256 of the manifest")
        return manifest

    # What came before

    def references(self) -> list[str]:
        """The policy versions that the KL was counted from, the one in use last; at first the first version."""
        value = self.store.read(REFERENCES)
        return self.versions("policy")[:1] if value is None else json.loads(value)

    def lineage(self) -> list[str]:
        """The policy versions that led to the live one, itself last, oldest first; none that failed or was refused."""
        live = self.live("policy")
        return [
            version
            for version in self.versions("policy")
            if live is not None and version <= live and self.status(version).state in ("live", "retired")
        ]

    def fallbacks(self, kind: Kind) -> list[str]:
        """The versions that one can go back to, the one that was live most recently last.

        One whose state says "live" and that the pointer has left is about to be retired, and was live most recently.
        """
        live, usable = self.live(kind), []
        for version in self.versions(kind):
            with suppress(VersionCorrupt):
                status = self.status(version)
                if version != live and status.state in ("live", "retired") and self.has_weights(version):
                    usable.append((status.state == "live", status.changed_ms, version))
        return [version for _, _, version in sorted(usable)]


def parse_status(version: str, value: str | None) -> Status:
    """Of a version's record; one that has none yet is a candidate. Raises VersionCorrupt."""
    try:
        return Status(state="candidate") if value is None else Status(**json.loads(value))
    except (ValueError, TypeError) as error:
        raise VersionCorrupt(f"{version}: the record of its state cannot be read ({error})") from error
