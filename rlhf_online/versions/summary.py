"""One row a version, for everybody who lists them: HTTP, gRPC and the command line show the same."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from rlhf_online.errors import VersionCorrupt
from rlhf_online.versions.catalogue import Catalogue
from rlhf_online.versions.manifest import Kind, Manifest, Status, kind_of


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSummary:
    """`manifest` is None for a version that is damaged; then the status's reason says how."""

    version: str
    kind: Kind
    status: Status
    manifest: Manifest | None

    def to_json(self) -> dict[str, Any]:
        """Without files and probe, which are long."""
        row = {"version": self.version, "kind": self.kind, **asdict(self.status)}
        if (manifest := self.manifest) is None:
            return row
        return row | {
            "tuning": manifest.tuning,
            "parent": manifest.parent,
            "created_ms": manifest.created_ms,
            "reward_version": manifest.reward_version,
            "kl": manifest.kl,
            "position": manifest.position,
            "reference": manifest.reference,
            "figures": manifest.figures,
            "weights": manifest.weights,
        }


def summaries(
    catalogue: Catalogue, kind: Kind | None = None, manifest: Callable[[str], Manifest] | None = None
) -> list[VersionSummary]:
    """All versions, oldest first; one that is damaged is a row that says so.

    `manifest` reads a manifest, by default from the catalogue; who lists often gives one that remembers.
    """
    read = manifest or catalogue.manifest
    return [_summary(catalogue, version, read) for version in catalogue.versions(kind)]


def _summary(catalogue: Catalogue, version: str, read: Callable[[str], Manifest]) -> VersionSummary:
    kind = kind_of(version)
    try:
        status = catalogue.status(version)
    except VersionCorrupt as error:
        return VersionSummary(
            version=version, kind=kind, status=Status(state="failed", reason=str(error)), manifest=None
        )
    try:
        return VersionSummary(version=version, kind=kind, status=status, manifest=read(version))
    except VersionCorrupt as error:
        return VersionSummary(version=version, kind=kind, status=replace(status, reason=str(error)), manifest=None)
