"""What is answered about comparisons. Before the vote nothing in it tells which version wrote which answer."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from services.chat.bodies.documented import documented


@documented
class AnswerName(TypedDict):
    """Names an answer in feedback."""

    completion_id: str
    """Id of the completion."""
    index: int
    """Which of its answers, from 0."""


@documented
class ComparedAnswer(TypedDict):
    """One of the answers."""

    answer: AnswerName
    """Its name in feedback."""
    text: str
    """The text."""
    reasoning: str
    """What a thinking model thought before it answered; empty where it did not."""
    finish_reason: str
    """ "stop" or "length"."""


@documented
class Comparison(TypedDict):
    """Answers to one prompt, in the order in which they are to be shown."""

    object: Literal["comparison"]
    """Always "comparison"."""
    comparison_id: str
    """What `GET /v1/comparisons/{comparison_id}` asks for."""
    created: int
    """When the request arrived, Unix time in seconds."""
    conversation_id: str
    """The conversation."""
    answers: list[ComparedAnswer]
    """The answers, the one shown first first."""
    logged: bool
    """True once all of them are on disk."""


@documented
class ComparisonPiece(TypedDict):
    """A piece of one of the answers, as a server-sent event, or the end; `data: [DONE]` follows it."""

    comparison_id: str
    """Id of the comparison."""
    slot: NotRequired[int]
    """Which answer the piece belongs to: its place, from 0."""
    completion_id: NotRequired[str]
    """That answer's name in feedback; its index is 0."""
    delta: NotRequired[str]
    """The piece of text."""
    reasoning: NotRequired[str]
    """A piece of what a thinking model thinks before it answers."""
    finish_reason: NotRequired[str]
    """In the last piece of each answer."""
    final: NotRequired[Comparison]
    """In the last event, which is sent when all answers are on disk: the answers as a whole."""


@documented
class NamedAnswer(TypedDict):
    """One of the answers, and who wrote it."""

    answer: AnswerName
    """Its name in feedback."""
    versions: list[str]
    """The versions that wrote it, in their order; empty before the vote, and where they could not be told."""


@documented
class ComparisonResult(TypedDict):
    """What was compared."""

    comparison_id: str
    """Its id."""
    conversation_id: str
    """The conversation."""
    answers: list[NamedAnswer]
    """The answers, the one shown first first."""
    voted: bool
    """True once the person has compared them: then their writers are named."""
    tells: bool
    """True if an answer names the model or a version in its text, so that a vote could know."""
