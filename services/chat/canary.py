"""Canaries, everybody's and audiences', as operators see and end them. Calls read small files: handlers run them in a
thread."""

from collections.abc import Mapping
from typing import Annotated, Any, cast

import structlog
from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from rlhf_online.canary import record
from rlhf_online.canary.record import Canary
from rlhf_online.canary.report import report
from rlhf_online.errors import InvalidInput
from rlhf_online.state import StateDir
from rlhf_online.versions.registry import Registry
from services.chat.bodies.api_error import ApiError
from services.chat.bodies.documented import documented
from services.chat.bodies.kinds import Kinds
from services.chat.bodies.validation import Model, validate

KINDS = Kinds("policy")


class CanaryRequest(Model):
    """Which canary."""

    kind: Annotated[str, AfterValidator(KINDS.check)] = KINDS.field("policy: everybody's; policy.NAME: an audience's.")


class EndCanaryRequest(CanaryRequest):
    """Ends the canary."""

    reason: str = Field(default="", max_length=1024, description="Why; kept with the version.")


@documented
class CanaryState(TypedDict):
    """The version that some conversations get before people have spoken, and what they said so far."""

    version: str
    """Its name; empty where there is no canary, and then all else is, too."""
    live: str
    """The live version, with which it is compared."""
    share: float
    """Of the conversations that it answers, 0 to 1."""
    steps: list[float]
    """All shares, from the first to the last."""
    step: int
    """Which of them it is at, from 0."""
    began_ms: int
    """When it became the canary, Unix time in milliseconds."""
    since_ms: int
    """When this step began, Unix time in milliseconds."""
    reason: str
    """Why it is at this step."""
    answers: int | None
    """Its answers since then; this and what follows is null before the trainer has counted."""
    people: int | None
    """People who were counted, each once."""
    better: float | None
    """Evidence that people prefer it: what a fair bet against that has made of 1. It may be looked at at any time."""
    worse: float | None
    """Evidence that people prefer the live version."""
    preference_low: float | None
    """Lower end of the 95 % confidence sequence of people's preference for it; 0.5 is none."""
    preference_high: float | None
    """Upper end."""
    aborted_share: float | None
    """Of its answers that ended unfinished."""
    empty_share: float | None
    """Of its answers that held nothing."""
    slow_share: float | None
    """Of its answers that took too long."""
    thumbs_down_share: float | None
    """Of the thumbs on its answers that were down."""


class Canaries:
    """Tells of a canary, promotes it, takes it back."""

    def __init__(self, registry: Registry, state: StateDir) -> None:
        self._registry = registry
        self._state = state
        self._log = structlog.get_logger()

    def state(self, values: Mapping[str, Any]) -> CanaryState:
        """As it is now. Raises ApiError."""
        return self._now(validate(CanaryRequest, values))

    def promote(self, values: Mapping[str, Any], by: str) -> CanaryState:
        """Make it the live version now. Raises ApiError: 400, or 409 if there is none."""
        request, why, canary = self._asked(values, by)
        try:
            self._registry.promote(canary.version, reason=f"promoted {why}", over=canary.live, by=by)
        except InvalidInput as error:
            raise _conflict(str(error)) from error
        return self._now(request)

    def abort(self, values: Mapping[str, Any], by: str) -> CanaryState:
        """Nobody gets it any more. Raises ApiError: 400, or 409 if there is none."""
        request, why, canary = self._asked(values, by)
        record.end(self._registry, canary, f"taken back {why}", by)
        return self._now(request)

    def _now(self, request: CanaryRequest) -> CanaryState:
        return cast("CanaryState", report(self._registry, self._state, request.kind))

    def _asked(self, values: Mapping[str, Any], by: str) -> tuple[EndCanaryRequest, str, Canary]:
        request = validate(EndCanaryRequest, values)
        if (canary := record.under_way(self._registry, request.kind)) is None:
            raise _conflict("there is no canary: GET /v1/versions tells the versions' states")
        self._log.info("the canary is ended by hand", version=canary.version, by=by)
        return request, f"by {by}" + (f": {request.reason}" if request.reason else ""), canary


def _conflict(message: str) -> ApiError:
    return ApiError(message, status=409, type="conflict_error", code="version_conflict")
