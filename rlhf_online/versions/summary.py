"""One row a version, for everybody who lists them: HTTP, gRPC and the command line show the same."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from rlhf_online.errors import VersionCorrupt
from rlhf_online.versions.catalogue import Catalogue, each
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
            "rules_version": manifest.rules_version,
            "traceparent": manifest.traceparent,
        }


def summaries(catalogue: Catalogue, kind: Kind | None = None) -> list[VersionSummary]:
    """All versions, oldest first; one that is damaged is a row that says so."""
    return each(lambda version: _summary(catalogue, version), catalogue.versions(kind))


def _summary(catalogue: Catalogue, version: str) -> VersionSummary:
    kind, status = kind_of(version), catalogue.status(version)
    try:
        return VersionSummary(version=version, kind=kind, status=status, manifest=catalogue.manifest(version))
    except VersionCorrupt as error:
        return VersionSummary(version=version, kind=kind, status=replace(status, reason=str(error)), manifest=None)
