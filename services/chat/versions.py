"""The registry as clients and operators see it. Calls read small files: handlers run them in a thread."""

import hmac
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field

from rlhf_online.errors import InvalidInput, UnknownVersion, VersionCorrupt
from rlhf_online.versions.manifest import Change, Kind, Manifest, kind_of
from rlhf_online.versions.registry import Registry
from services.chat.refusal import Refusal
from services.chat.validation import Model, validate


class RollbackRequest(Model):
    """Leaves the live version for the one that was live before it."""

    kind: Literal["policy", "reward"] = Field(default="policy", description="Of which kind.")
    reason: str = Field(default="", max_length=1024, description="Kept with the version that is left.")


class Versions:
    """Lists, promotes and rolls back. Manifests never change, so each is read once."""

    def __init__(self, registry: Registry, operator_token: str) -> None:
        self.registry = registry
        self._token = operator_token.encode()
        self._manifests: dict[str, Manifest] = {}

    def authorize(self, header: str | None) -> None:
        """Raises Refusal unless `header` is "Bearer " and the operator's credential."""
        scheme, _, token = (header or "").partition(" ")
        given = token.strip().encode("utf-8", errors="replace")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._token):
            raise Refusal(
                "the operator's credential is needed: Authorization: Bearer <content of operator.token in the state "
                "folder>",
                status=401,
                type="authentication_error",
                code="invalid_credential",
            )

    def manifest(self, version: str) -> Manifest:
        """Raises UnknownVersion or VersionCorrupt."""
        if version not in self._manifests:
            self._manifests[version] = self.registry.manifest(version)
        return self._manifests[version]

    def listing(self, kind: Kind | None = None) -> dict[str, Any]:
        """Live names and a summary of each version, oldest first; no files, no probes."""
        return {
            "live": {name: self.registry.live(name) for name in ("policy", "reward")},
            "versions": [self._summary(name) for name in self.registry.versions(kind)],
        }

    def promote(self, version: str) -> Change:
        """Raises Refusal: 404 for an unknown version, 409 for one that may not serve."""
        try:
            return self.registry.promote(version, reason="promoted by the operator")
        except UnknownVersion:
            raise
        except InvalidInput as error:
            raise _conflict(error) from error

    def rollback(self, values: Mapping[str, Any]) -> Change:
        """Raises Refusal: 400, or 409 if there is no version to go back to."""
        request = validate(RollbackRequest, values)
        try:
            return self.registry.rollback(request.kind, reason=request.reason or "rolled back by the operator")
        except InvalidInput as error:
            raise _conflict(error) from error

    def _summary(self, version: str) -> dict[str, Any]:
        status = asdict(self.registry.status(version))
        try:
            manifest = self.manifest(version)
        except VersionCorrupt as error:
            return {"version": version, "kind": kind_of(version), **status, "reason": str(error)}
        return {
            "version": version,
            "kind": kind_of(version),
            **status,
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


def _conflict(error: InvalidInput) -> Refusal:
    return Refusal(str(error), status=409, type="conflict_error", code="version_conflict")
