"""What people are asked to judge, as an operator adds it and as an annotator and an operator read of it.

An item is one answer, to be called good or bad, or two to six answers to one prompt, to be ranked. Nothing in it tells
who asked, or which version wrote what.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import TypedDict

from services.chat.access.caller import PersonQuery
from services.chat.bodies.api_error import ErrorDetail
from services.chat.bodies.documented import documented
from services.chat.bodies.validation import Array, AtMost, Expected, Integer, Mistake, Model, Within
from services.chat.comparisons.replies import AnswerName, ComparedAnswer
from services.chat.comparisons.request import MOST, CompareRequest
from services.chat.feedback.request import MAX_CORRECTION, MAX_ID, MAX_REASON, Answer

MOST_PEOPLE = 100
MOST_UNVOTED = 1000
SOURCES = ("completion_id", "comparison_id", "answers", "compare", "unvoted")
ITEM_ID = r"[\w.:-]{1,128}"


def _item_id(text: str) -> str:
    if text and not re.fullmatch(ITEM_ID, text, re.ASCII):
        raise Mistake("expected 1 to 128 letters, digits and any of . : _ -")
    return text


MOST_NOTES = 64
MAX_FAULT = 2000


class AddedNote(Model):
    """What a critic says of one of the item's answers."""

    answer: Answer = Field(description="The answer.")
    quote: str = Field(
        min_length=1,
        max_length=MAX_CORRECTION,
        description="The words that it is about, as the answer has them.",
    )
    fault: str = Field(min_length=1, max_length=MAX_FAULT, description="What is wrong with them.")


class AddItem(Model):
    """What is to be judged: exactly one of the five sources, and by how many people."""

    item_id: Annotated[str, AfterValidator(_item_id)] = Field(
        default="", description="Its name; by default made of the answers' names. The same one again is the same item."
    )
    people: Annotated[Integer, Within(1, MOST_PEOPLE)] = Field(
        default=1, description="How many people are to judge it."
    )
    completion_id: str = Field(
        default="", max_length=MAX_ID, description="A completion that was logged: all of its answers."
    )
    comparison_id: str = Field(
        default="", max_length=MAX_ID, description="A comparison that was logged: all of its answers."
    )
    answers: Annotated[Array[Answer], Expected("an array of answers"), AtMost(MOST, "answers")] = Field(
        default=[], description="Answers to one prompt that were logged."
    )
    compare: Annotated[CompareRequest, Expected("an object, the body of a comparison")] | None = Field(
        default=None, description="Answers to be written now: the body of POST /v1/comparisons."
    )
    notes: Annotated[Array[AddedNote], Expected("an array of notes"), AtMost(MOST_NOTES, "notes")] = Field(
        default=[],
        description="What a critic says of logged answers: half of the people, drawn for each, see it, and each vote "
        "says whether.",
    )
    unvoted: Annotated[Integer, Within(1, MOST_UNVOTED)] | None = Field(
        default=None, description="The newest completions that nobody has voted on, at most so many: an item of each."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "AddItem":
        given = [name for name in SOURCES if getattr(self, name)]
        if len(given) != 1:
            raise Mistake(f"expected exactly one of {', '.join(SOURCES)}, got {' and '.join(given) or 'none'}")
        if len({(answer.completion_id, answer.index) for answer in self.answers}) < len(self.answers):
            raise Mistake("answers: one is named twice", param="answers")
        if self.unvoted and self.item_id:
            raise Mistake("item_id: unvoted makes several items, which are named by their answers", param="item_id")
        if self.notes and (self.unvoted or self.compare is not None):
            raise Mistake("notes: they are on answers that were logged: name the answers", param="notes")
        if self.compare is not None and self.compare.stream:
            raise Mistake(
                "compare.stream: an item is shown when its answers are whole; leave it out", param="compare.stream"
            )
        return self


class SkipItem(PersonQuery):
    """Why, and whose where the service has no keys."""

    reason: str = Field(default="", max_length=MAX_REASON, description="Why it cannot be judged, for the operator.")


@documented
class AddedItems(TypedDict, total=False):
    """The items are on disk, or nothing of the line was taken."""

    item_ids: list[str]
    """Their names, those that were there before included."""
    error: ErrorDetail
    """Why it was refused."""


@documented
class AddedBatch(TypedDict):
    """What became of each line."""

    results: list[AddedItems]
    """One for each line, in their order."""


@documented
class ItemNote(TypedDict):
    """What a critic says of an answer; it may be wrong."""

    answer: AnswerName
    """The answer."""
    quote: str
    """The words that it is about."""
    fault: str
    """What is wrong with them."""


@documented
class AnnotationItem(TypedDict):
    """An item that nobody else is asked about meanwhile, beyond the number of people it wants."""

    object: Literal["annotation.item"]
    """Always "annotation.item"."""
    item_id: str
    """Its name."""
    messages: list[dict[str, Any]]
    """What was asked, the conversation before it included."""
    answers: list[ComparedAnswer]
    """The answers, in the order in which this person is to see them."""
    notes: list[ItemNote]
    """A critic's notes on them; empty where there are none, and for those who by the draw see none."""
    expires_ms: int
    """Until when it is reserved, Unix time in milliseconds; asking again renews it."""


@documented
class ItemSkipped(TypedDict):
    """The item is left to others."""

    item_id: str
    """Its name."""


@documented
class ItemTakenBack(TypedDict):
    """The item is the caller's again, and what they are asked next."""

    item_id: str
    """Its name."""


@documented
class Annotator(TypedDict):
    """What one person did."""

    person: str
    """The keyed hash of their name, as votes in the log carry it."""
    annotations: int
    """Items judged."""
    skipped: int
    """Items skipped."""


@documented
class Agreement(TypedDict):
    """Krippendorff's α of one kind of judgement."""

    alpha: float | None
    """1 is full agreement, 0 what chance would give; null where no two people judged the same, or all said the same."""
    interval: list[float] | None
    """The ends of its 95 % interval, by bootstrap over items; null where it has no α, or from one item alone."""
    units: int
    """What at least two people judged: items, or pairs of an item's answers."""


@documented
class Progress(TypedDict):
    """How far the queue is."""

    items: int
    """All items."""
    finished: int
    """Those that as many people as they want have judged."""
    in_progress: int
    """Those that are reserved for somebody now."""
    annotations: int
    """Judgements of all items."""
    wanted: int
    """How many they all want."""
    skipped: int
    """How often one was skipped."""
    yours: int
    """The caller's own judgements."""
    people: list[Annotator]
    """The hundred who judged most."""
    thumbs: Agreement
    """On single answers: α with the nominal difference, an item a unit."""
    rankings: Agreement
    """On several: α with the ordinal difference of better, tied and worse; a pair of an item's answers is a unit."""


@documented
class Guidelines(TypedDict):
    """How the items are to be judged."""

    text: str
    """The text of the operator's file; empty without one."""
    markdown: bool
    """Whether the text is Markdown."""
