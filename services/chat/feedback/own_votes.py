"""A person's own votes: what became of one, which there are, and taking one back.

Somebody else's vote is as good as none: 404, whether it exists or not.
"""

import uuid
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, cast

from pydantic import Field
from typing_extensions import TypedDict

from rlhf_online.errors import FileDamaged
from rlhf_online.events import Feedback
from rlhf_online.feedback.outcomes import OutcomeBoard
from rlhf_online.state import PersonHash
from rlhf_online.versions.catalogue import Catalogue
from services.chat.access.caller import Caller, PersonQuery
from services.chat.bodies.api_error import ApiError, unavailable
from services.chat.bodies.documented import documented
from services.chat.bodies.validation import FROM_QUERY, Integer, Within, validate
from services.chat.feedback.history import RecordedVote, VoteHistory
from services.chat.feedback.request import MAX_ID, MAX_NAME
from services.chat.feedback.status import FeedbackStatus, status

PAGE, LONGEST_PAGE = 20, 100


class ListFeedbackQuery(PersonQuery):
    """Whose votes, and which."""

    conversation_id: str = Field(
        default="", max_length=MAX_NAME, description="Only those on answers of this conversation."
    )
    completion_id: str = Field(default="", max_length=MAX_ID, description="Only those on answers of this completion.")
    limit: Annotated[Integer, Within(1, LONGEST_PAGE), FROM_QUERY] = Field(
        default=PAGE, description="How many at most."
    )
    after: str = Field(
        default="", max_length=MAX_ID, description="Begin behind this vote, the last of the page before."
    )


@documented
class FeedbackItem(TypedDict, total=False):
    """A vote as it was sent: one of the kinds, and what was said beside it."""

    event_id: str
    """The vote's id."""
    replaced_by: str
    """The vote that took its place, or took it back; empty if none has."""
    created_ms: int
    """When the service took it, Unix time in milliseconds."""
    conversation_id: str
    """The conversation, if the client named it; else the first answer's completion."""
    thumb: dict[str, Any]
    """Good or bad."""
    ranking: dict[str, Any]
    """Several answers, best first."""
    pairwise: dict[str, Any]
    """One answer against another."""
    correction: dict[str, Any]
    """What would have been better."""
    implicit: dict[str, Any]
    """Something that was done instead of voting."""
    withdrawal: dict[str, Any]
    """An earlier vote was taken back."""
    objective: str
    """What it was judged by; empty for the first objective."""
    reasons: list[str]
    """Why, in tags."""
    reason: str
    """Why, in words."""
    source: str
    """Where it came from."""
    shown: list[dict[str, Any]]
    """Order in which the answers were shown, if known."""
    response_ms: int
    """Milliseconds between the showing and the vote; 0 if unknown."""
    replaces: str
    """The vote that this one took the place of; empty if none."""
    comparison_id: str
    """The comparison whose answers it judged, if the service showed them so."""
    could_know: bool
    """Whether the person could know which version wrote what."""
    annotation_item: str
    """The item of the annotators' queue that it settled; empty for a vote of one's own accord."""
    notes: str
    """Whether a critic's notes stood beside the answers, "shown" or "withheld" by a draw; empty if there were none."""


@documented
class FeedbackList(TypedDict):
    """The caller's votes that this service's log holds, the newest first."""

    data: list[FeedbackItem]
    """The votes."""
    has_more: bool
    """Whether there are older ones: ask again with `after`."""


class OwnVotes:
    """Looks votes up. Its calls read small files: handlers run them in a thread."""

    def __init__(
        self, history: VoteHistory, board: OutcomeBoard, catalogue: Catalogue, person_hash: PersonHash
    ) -> None:
        self.history = history
        self._board = board
        self._catalogue = catalogue
        self._person_hash = person_hash

    def status(self, event_id: str, values: Mapping[str, Any], caller: Caller) -> FeedbackStatus:
        """Raises ApiError: 404 for a vote that is not the caller's, or that nobody here knows."""
        person = self._person(validate(PersonQuery, values).user, caller)
        found = self.history.find(event_id, person)
        try:
            outcomes = self._board.find(event_id, person, found.vote.created_ms if found else 0)
            if found is None and not outcomes:
                raise _unknown(event_id)
            return status(
                event_id,
                outcomes,
                self._catalogue,
                accepted_ms=found.vote.created_ms if found else 0,
                replaced_by=found.replaced_by if found else "",
            )
        except (OSError, FileDamaged) as error:
            raise unavailable(f"what became of votes cannot be read: {error}", "versions_unavailable") from error

    def page(self, values: Mapping[str, Any], caller: Caller) -> tuple[list[RecordedVote], bool]:
        """The votes, and whether there are older ones. Raises ApiError."""
        query = validate(ListFeedbackQuery, values)
        person = self._person(query.user, caller)
        if not person:
            message = "user: missing; a history is somebody's: say whose, or use a key"
            raise ApiError(message, param="user", code="missing_parameter")
        if query.after and self.history.find(query.after, person) is None:
            raise ApiError(f"after: there is no vote {query.after!r} of yours", param="after", code="invalid_value")
        found = self.history.page(
            person,
            conversation=query.conversation_id,
            completion=query.completion_id,
            after=query.after,
            limit=query.limit + 1,
        )
        return found[: query.limit], len(found) > query.limit

    def withdrawal(self, event_id: str, values: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """The feedback that takes the vote back; sent again it is the same. Raises ApiError."""
        query = validate(PersonQuery, values)
        found = self.history.find(event_id, self._person(query.user, caller))
        if found is None:
            raise _unknown(event_id)
        return {
            "withdrawal": {"answer": asdict(found.vote.answers()[0])},
            "replaces": event_id,
            "conversation_id": found.vote.conversation_id,
            "user": query.user,
            "idempotency_key": f"withdrawal of {event_id}",
        }

    def edit(self, event_id: str, values: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """The feedback that takes the vote's place. Raises ApiError."""
        if values.get("replaces") not in (None, "", event_id):
            message = f"replaces: the path names {event_id}, and the body another vote; leave it out of the body"
            raise ApiError(message, param="replaces", code="invalid_value")
        user = values.get("user")
        if self.history.find(event_id, self._person(user if isinstance(user, str) else "", caller)) is None:
            raise _unknown(event_id)
        return {**values, "replaces": event_id}

    def _person(self, user: str, caller: Caller) -> str:
        return caller.named(user, self._person_hash).person


def item(recorded: RecordedVote) -> FeedbackItem:
    """The vote as the client sent it, and what became of it."""
    return cast("FeedbackItem", sent(recorded.event_id, recorded.vote) | {"replaced_by": recorded.replaced_by})


def sent(event_id: str, vote: Feedback) -> dict[str, Any]:
    """The fields of a FeedbackItem that the vote itself says."""
    said = asdict(vote)
    values = {name: said[name] for name in FeedbackItem.__annotations__ if name in said}
    return values | {"event_id": event_id, vote.kind_name: said["kind"]}


def _unknown(event_id: str) -> ApiError:
    try:
        named = f"the vote {uuid.UUID(event_id)}"
    except ValueError:
        named = "a vote of that id"
    message = f"{named} of yours is not known here: it was never accepted, is not yours, or another service took it"
    return ApiError(message, status=404, param="event_id", code="feedback_not_found")
