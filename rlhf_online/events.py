"""The event types: what was asked and answered, what people thought of it, which weights served.

They mirror `protos/rlhf/v1/events.proto`, whose comments define every field; `wire` converts. All are frozen.
Invariant: `len(answer.token_ids) == len(answer.logprobs)`, and spans ascend and begin at token 0 where present.
"""

import hashlib
import time
from dataclasses import dataclass, field

SCHEMA_VERSION = 1
SHOWN, WITHHELD = "shown", "withheld"
"""What became of a critic's notes."""
SIGNALS = ("regenerate", "rephrase", "stop")
"""What somebody may do instead of voting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """`other` is a JSON object with all else that the request said of it (`tool_calls`, `name`, …), "" for nothing."""

    role: str
    content: str
    other: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """`arguments` is JSON, if the model wrote it rightly."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSpan:
    policy_version: str
    first_token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    spans: tuple[VersionSpan, ...]
    finish_reason: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def sole_version(self) -> str:
        """The version that wrote all of it; "" if several did, or it is not known."""
        versions = {span.policy_version for span in self.spans}
        return versions.pop() if len(versions) == 1 else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 0
    seed: int | None = None
    full_support: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    completion_id: str
    conversation_id: str
    person: str
    messages: tuple[Message, ...]
    prompt_token_ids: tuple[int, ...]
    answers: tuple[Answer, ...]
    sampling: Sampling
    started_ms: int
    finished_ms: int
    asked: str = ""
    comparison_id: str = ""
    slot: int = 0

    @property
    def origin(self) -> str:
        """See `origin`."""
        return origin(self.conversation_id, self.person)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRef:
    completion_id: str
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb:
    answer: AnswerRef
    up: bool


AI = "ai"
"""The source of a vote that no person gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """`tiers[0]` holds the best answers; answers of one tier are tied."""

    tiers: tuple[tuple[AnswerRef, ...], ...]

    def ranks(self) -> dict[AnswerRef, int]:
        """Each answer's tier, 0 for the best."""
        return {ref: rank for rank, tier in enumerate(self.tiers) for ref in tier}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairwise:
    chosen: AnswerRef
    rejected: AnswerRef
    tie: bool = False
    strength: int = 0
    unsure: bool = False

    def ranks(self) -> dict[AnswerRef, int]:
        """0 for the better answer, or for both where neither is."""
        return {self.chosen: 0, self.rejected: 0 if self.tie or self.unsure else 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    answer: AnswerRef
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Implicit:
    """`signal` is one of SIGNALS."""

    answer: AnswerRef
    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    answer: AnswerRef


FeedbackKind = Thumb | Ranking | Pairwise | Correction | Implicit | Withdrawal


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    conversation_id: str
    person: str
    kind: FeedbackKind
    reason: str = ""
    source: str = "api"
    shown: tuple[AnswerRef, ...] = ()
    response_ms: int = 0
    created_ms: int = 0
    replaces: str = ""
    objective: str = ""
    comparison_id: str = ""
    could_know: bool = False
    reasons: tuple[str, ...] = ()
    annotation_item: str = ""
    key_id: str = ""
    notes: str = ""
    """A critic's notes on the answers were "shown", "withheld" by a draw, or there were none."""

    @property
    def assisted(self) -> bool:
        """Whether its person saw a critic's notes."""
        return self.notes == SHOWN

    @property
    def by_ai(self) -> bool:
        """Whether no person gave it: a judge that is a model, or data labelled by one."""
        return self.source == AI

    @property
    def kind_name(self) -> str:
        """ "thumb", "ranking", …: the field of the kind in the API and in the log."""
        return type(self.kind).__name__.lower()

    def answers(self) -> tuple[AnswerRef, ...]:
        """The answers that this feedback judges, best first where there is an order; one that a withdrawal names."""
        match self.kind:
            case Thumb(answer=ref) | Correction(answer=ref) | Implicit(answer=ref) | Withdrawal(answer=ref):
                return (ref,)
            case Pairwise(chosen=chosen, rejected=rejected):
                return (chosen, rejected)
            case Ranking(tiers=tiers):
                return tuple(ref for tier in tiers for ref in tier)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionChange:
    version: str
    state: str
    previous: str
    reason: str
    changed_ms: int
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """`conversation_id` is "" where the person erased all that is theirs, their votes included."""

    conversation_id: str
    person: str
    erased_ms: int

    @property
    def origin(self) -> str:
        """See `origin`; of all of a person's one that no conversation has."""
        return origin(self.conversation_id, self.person)

    @property
    def whole(self) -> bool:
        """Whether all that is the person's was erased."""
        return not self.conversation_id

    def covers(self, conversation_id: str, person: str) -> bool:
        """Whether it is about that conversation of that person, however late."""
        return bool(person) and person == self.person and (self.whole or conversation_id == self.conversation_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shredded:
    """A sealed completion (whose id is the record's event id) or feedback whose person's key was deleted: what it said
    is gone."""

    kind: type[Completion] | type[Feedback]
    conversation_id: str
    person: str
    at_ms: int


Event = Completion | Feedback | VersionChange | Erasure | Shredded


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """Where a record of a file came from: `row` counts its rows from 1, `id` is the row's own name, `at_ms` when it
    happened by the file's word (0: it does not say). `other` is a JSON object with what else the row says."""

    format: str
    file: str
    row: int
    id: str = ""
    at_ms: int = 0
    other: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A record of the log. Two records with one `event_id` are the same event, sent twice.

    `imported` is None for what the services logged themselves.
    `sealed`: the record as it stood in the log, where it was sealed; whoever keeps the event keeps it as that.
    """

    event_id: str
    event: Event
    schema_version: int = SCHEMA_VERSION
    traceparent: str = ""
    imported: Imported | None = None
    sealed: bytes = field(default=b"", repr=False, compare=False)

    @property
    def at_ms(self) -> int:
        """When it happened, milliseconds since 1970 by the clock of the machine that saw it."""
        match self.event:
            case (
                Completion(finished_ms=ms)
                | Feedback(created_ms=ms)
                | VersionChange(changed_ms=ms)
                | Erasure(erased_ms=ms)
                | Shredded(at_ms=ms)
            ):
                return ms

    @property
    def key(self) -> str:
        """What orders events in Kafka: the conversation, the version's name, or who erased all that is theirs."""
        match self.event:
            case VersionChange(version=version):
                return version
            case Erasure(conversation_id="", person=person):
                return person
            case event:
                return event.conversation_id


def origin(conversation_id: str, person: str) -> str:
    """Whose conversation something stems from, as a digest; "" for nobody's, which nobody can erase."""
    key = f"{len(conversation_id)} {conversation_id}{person}".encode()
    return hashlib.blake2b(key, digest_size=8).hexdigest() if person else ""


def now_ms() -> int:
    """Milliseconds since 1970, as events carry them."""
    return time.time_ns() // 1_000_000
