"""Many votes at once: each is taken or refused by itself, in their order, and the log syncs them together.

A batch is sent again as a whole, under the same key: a vote in it that has no key of its own has that of the batch and
its place, so that it is the same vote.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import TypedDict

from rlhf_online.errors import LogUnavailable
from rlhf_online.events import Envelope
from services.chat.access.caller import Caller
from services.chat.bodies.api_error import ApiError, ErrorDetail, as_api_error
from services.chat.bodies.documented import documented
from services.chat.bodies.validation import parse_object
from services.chat.feedback.request import MAX_ID
from services.chat.feedback.service import FeedbackService

MAX_VOTES = 1000
MAX_BYTES = 16 << 20
TOGETHER = 32
"""Votes that are checked before others have a turn."""


@documented
class FeedbackResult(TypedDict, total=False):
    """A vote is on disk, or was refused."""

    event_id: str
    """The vote's id, if it was taken."""
    error: ErrorDetail
    """Why it was refused."""


@documented
class FeedbackBatch(TypedDict):
    """What became of each vote."""

    results: list[FeedbackResult]
    """One for each vote, in their order."""


Item = Mapping[str, Any] | ApiError
"""A vote's values, or what is wrong with them."""


def parse_lines(body: bytes, limit: int) -> list[Item]:
    """The votes of a body with one JSON object a line, each of at most `limit` bytes. Empty lines are none.

    Raises ApiError for far more lines than are taken.
    """
    if (lines := body.count(b"\n")) > 2 * MAX_VOTES:
        raise _too_many(lines)
    return [_parsed(line, limit) for line in body.split(b"\n") if line.strip()]


def _parsed(line: bytes, limit: int) -> Item:
    try:
        if len(line) > limit:
            raise ApiError(f"the line is larger than {limit} bytes", status=413, code="body_too_large")
        return parse_object(line)
    except ApiError as error:
        return error


async def accept_all(service: FeedbackService, items: Sequence[Item], caller: Caller, key: str) -> FeedbackBatch:
    """`key` is the batch's, "" without. Raises ApiError for a batch that is none, of which nothing is taken then."""
    if not items:
        raise ApiError("the batch is empty: send one vote a line", code="missing_parameter")
    if len(items) > MAX_VOTES:
        raise _too_many(len(items))
    if len(key) > MAX_ID - 8:
        message = f"Idempotency-Key: {len(key)} characters, at most {MAX_ID - 8} are taken"
        raise ApiError(message, param="Idempotency-Key", code="string_above_max_length")
    checked: list[Envelope | ApiError] = []
    for number, item in enumerate(items):
        if key and isinstance(item, Mapping) and not item.get("idempotency_key"):
            item = {**item, "idempotency_key": f"{key}/{number}"}
        checked.append(_checked(service, item, caller))
        if number % TOGETHER == TOGETHER - 1:
            await asyncio.sleep(0)
    # Only now, and all of them together: the log syncs what comes while it syncs as one.
    return {"results": list(await asyncio.gather(*(_write(service, vote) for vote in checked)))}


def _too_many(votes: int) -> ApiError:
    message = f"{votes} votes, at most {MAX_VOTES} are taken at once; none of them was"
    return ApiError(message, status=413, code="batch_too_large")


def _checked(service: FeedbackService, item: Item, caller: Caller) -> Envelope | ApiError:
    if isinstance(item, ApiError):
        service.count("unknown", "invalid")
        return item
    try:
        return service.checked(item, caller)
    except ApiError as error:
        return error


async def _write(service: FeedbackService, vote: Envelope | ApiError) -> FeedbackResult:
    try:
        if isinstance(vote, ApiError):
            raise vote
        return {"event_id": (await service.write(vote))["event_id"]}
    except (ApiError, LogUnavailable) as error:
        return {"error": as_api_error(error).body()["error"]}
