"""The registry as clients and operators see it. Calls read small files: handlers run them in a thread."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from rlhf_online.errors import InvalidInput, UnknownVersion
from rlhf_online.versions.manifest import Change
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.summary import VersionSummary, summaries
from services.chat.bodies.api_error import ApiError
from services.chat.bodies.documented import documented
from services.chat.bodies.kinds import Kinds
from services.chat.bodies.validation import Model, validate


class ListVersionsRequest(Model):
    """Which versions."""

    kind: Literal["policy", "reward"] | None = Field(default=None, description="Of which kind; by default of both.")


KINDS = Kinds("policy", "reward")


class RollbackRequest(Model):
    """Leaves the live version for the one that was live before it."""

    kind: Annotated[str, AfterValidator(KINDS.check)] = KINDS.field(
        "Of which kind: policy, reward, or policy.NAME, an audience's."
    )
    reason: str = Field(default="", max_length=1024, description="Kept with the version that is left.")


@documented
class VersionRow(TypedDict):
    """A version and its state. Where its manifest cannot be read, `reason` says so and the rest is missing."""

    version: str
    """Its name, "policy-000012"."""
    kind: str
    """ "policy", "reward", or "policy.NAME": of an audience."""
    state: str
    """ "candidate", "canary", "live", "retired", "rejected" or "failed"."""
    reason: str
    """Why it is in this state, where there is a reason."""
    gate: dict[str, Any]
    """What the gate measured before it was promoted or rejected."""
    changed_ms: int
    """When it entered the state, Unix time in milliseconds."""
    first_live_ms: int
    """When it was live for the first time, Unix time in milliseconds; 0 if it never was, or nobody noted it."""
    by: str
    """Who gave it its state: "trainer", "pod NAME", "reward service" or "operator KEY"; empty: nobody noted it."""
    tuning: NotRequired[str]
    """ "full" (all weights) or "lora" (an adapter)."""
    parent: NotRequired[str]
    """The version that training started from; empty for the first."""
    created_ms: NotRequired[int]
    """When it was made, Unix time in milliseconds."""
    reward_version: NotRequired[str]
    """The reward version that scored it; empty for the first and for reward versions."""
    kl: NotRequired[float]
    """Mean KL to the reference in nats an answer."""
    position: NotRequired[dict[str, int]]
    """The log position up to which it has learned: partition → next offset."""
    reference: NotRequired[str]
    """The policy version that the KL counts from; empty for reward versions."""
    figures: NotRequired[dict[str, float]]
    """What was measured of a reward version on held-out votes, by name."""
    weights: NotRequired[dict[str, float]]
    """What each objective counted in the scores that a policy version learned from."""
    rules_version: NotRequired[str]
    """The rules whose rewards were among those scores; empty for none."""
    traceparent: NotRequired[str]
    """The W3C trace context of the training cycle that made it; empty without traces."""


@documented
class VersionList(TypedDict):
    """What serves, and every version."""

    serving: str
    """The policy version that writes answers now; empty before the first."""
    live: dict[str, str | None]
    """The live version of each kind; null before the first."""
    versions: list[VersionRow]
    """Policies, then rewards, oldest first."""


@documented
class VersionChanged(TypedDict):
    """A version is live."""

    version: str
    """The version that is live from now on; the swap follows within seconds."""
    state: str
    """Its state, "live"; "failed" for an audience's that none came before, so that the common one answers."""
    previous: str
    """The version that was live before; empty if there was none."""
    reason: str
    """Why."""
    by: str
    """Who: the operator's key."""


class Versions:
    """Lists, promotes and rolls back."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def rows(self, values: Mapping[str, Any]) -> list[VersionSummary]:
        """Raises ApiError."""
        return summaries(self.registry, validate(ListVersionsRequest, values).kind)

    def live(self) -> dict[str, str | None]:
        """The live version of each kind."""
        return {"policy": self.registry.live("policy"), "reward": self.registry.live("reward")}

    def promote(self, version: str, by: str) -> VersionChanged:
        """Raises ApiError: 404 for an unknown version, 409 for one that may not serve."""
        try:
            return _changed(self.registry.promote(version, reason="promoted by the operator", by=by))
        except UnknownVersion:
            raise
        except InvalidInput as error:
            raise _conflict(error) from error

    def rollback(self, values: Mapping[str, Any], by: str) -> VersionChanged:
        """Raises ApiError: 400, or 409 if there is no version to go back to."""
        request = validate(RollbackRequest, values)
        try:
            reason = request.reason or "rolled back by the operator"
            return _changed(self.registry.rollback(request.kind, reason=reason, by=by))
        except InvalidInput as error:
            raise _conflict(error) from error


def _changed(change: Change) -> VersionChanged:
    return {
        "version": change.version,
        "state": change.state,
        "previous": change.previous,
        "reason": change.reason,
        "by": change.by,
    }


def _conflict(error: InvalidInput) -> ApiError:
    return ApiError(str(error), status=409, type="conflict_error", code="version_conflict")
