from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Message(_message.Message):
    __slots__ = ("role", "content", "name", "tool_calls", "tool_call_id", "other")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    name: str
    tool_calls: _containers.RepeatedCompositeFieldContainer[ToolCall]
    tool_call_id: str
    other: Json
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ..., name: _Optional[str] = ..., tool_calls: _Optional[_Iterable[_Union[ToolCall, _Mapping]]] = ..., tool_call_id: _Optional[str] = ..., other: _Optional[_Union[Json, _Mapping]] = ...) -> None: ...

class ToolCall(_message.Message):
    __slots__ = ("id", "type", "function", "index")
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    id: str
    type: str
    function: FunctionCall
    index: int
    def __init__(self, id: _Optional[str] = ..., type: _Optional[str] = ..., function: _Optional[_Union[FunctionCall, _Mapping]] = ..., index: _Optional[int] = ...) -> None: ...

class FunctionCall(_message.Message):
    __slots__ = ("name", "arguments")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    arguments: str
    def __init__(self, name: _Optional[str] = ..., arguments: _Optional[str] = ...) -> None: ...

class Json(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class VersionSpan(_message.Message):
    __slots__ = ("policy_version", "first_token")
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    policy_version: str
    first_token: int
    def __init__(self, policy_version: _Optional[str] = ..., first_token: _Optional[int] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("index", "text", "token_ids", "logprobs", "spans", "finish_reason", "reasoning", "tool_calls")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    spans: _containers.RepeatedCompositeFieldContainer[VersionSpan]
    finish_reason: str
    reasoning: str
    tool_calls: _containers.RepeatedCompositeFieldContainer[ToolCall]
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[float]] = ..., spans: _Optional[_Iterable[_Union[VersionSpan, _Mapping]]] = ..., finish_reason: _Optional[str] = ..., reasoning: _Optional[str] = ..., tool_calls: _Optional[_Iterable[_Union[ToolCall, _Mapping]]] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "full_support")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    FULL_SUPPORT_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    max_tokens: int
    seed: int
    full_support: bool
    def __init__(self, temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., min_p: _Optional[float] = ..., max_tokens: _Optional[int] = ..., seed: _Optional[int] = ..., full_support: _Optional[bool] = ...) -> None: ...

class Completion(_message.Message):
    __slots__ = ("completion_id", "conversation_id", "person", "messages", "prompt_token_ids", "answers", "sampling", "started_ms", "finished_ms", "asked", "comparison_id", "slot")
    COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    PERSON_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_MS_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_ID_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    completion_id: str
    conversation_id: str
    person: str
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    prompt_token_ids: _containers.RepeatedScalarFieldContainer[int]
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    sampling: Sampling
    started_ms: int
    finished_ms: int
    asked: Json
    comparison_id: str
    slot: int
    def __init__(self, completion_id: _Optional[str] = ..., conversation_id: _Optional[str] = ..., person: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., prompt_token_ids: _Optional[_Iterable[int]] = ..., answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., started_ms: _Optional[int] = ..., finished_ms: _Optional[int] = ..., asked: _Optional[_Union[Json, _Mapping]] = ..., comparison_id: _Optional[str] = ..., slot: _Optional[int] = ...) -> None: ...

class AnswerRef(_message.Message):
    __slots__ = ("completion_id", "index")
    COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    completion_id: str
    index: int
    def __init__(self, completion_id: _Optional[str] = ..., index: _Optional[int] = ...) -> None: ...

class Thumb(_message.Message):
    __slots__ = ("answer", "up")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    UP_FIELD_NUMBER: _ClassVar[int]
    answer: AnswerRef
    up: bool
    def __init__(self, answer: _Optional[_Union[AnswerRef, _Mapping]] = ..., up: _Optional[bool] = ...) -> None: ...

class Tier(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[AnswerRef]
    def __init__(self, answers: _Optional[_Iterable[_Union[AnswerRef, _Mapping]]] = ...) -> None: ...

class Ranking(_message.Message):
    __slots__ = ("tiers",)
    TIERS_FIELD_NUMBER: _ClassVar[int]
    tiers: _containers.RepeatedCompositeFieldContainer[Tier]
    def __init__(self, tiers: _Optional[_Iterable[_Union[Tier, _Mapping]]] = ...) -> None: ...

class Pairwise(_message.Message):
    __slots__ = ("chosen", "rejected", "tie", "strength", "unsure")
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    TIE_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    UNSURE_FIELD_NUMBER: _ClassVar[int]
    chosen: AnswerRef
    rejected: AnswerRef
    tie: bool
    strength: int
    unsure: bool
    def __init__(self, chosen: _Optional[_Union[AnswerRef, _Mapping]] = ..., rejected: _Optional[_Union[AnswerRef, _Mapping]] = ..., tie: _Optional[bool] = ..., strength: _Optional[int] = ..., unsure: _Optional[bool] = ...) -> None: ...

class Correction(_message.Message):
    __slots__ = ("answer", "text")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    answer: AnswerRef
    text: str
    def __init__(self, answer: _Optional[_Union[AnswerRef, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class Implicit(_message.Message):
    __slots__ = ("answer", "signal")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    answer: AnswerRef
    signal: str
    def __init__(self, answer: _Optional[_Union[AnswerRef, _Mapping]] = ..., signal: _Optional[str] = ...) -> None: ...

class Withdrawal(_message.Message):
    __slots__ = ("answer",)
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    answer: AnswerRef
    def __init__(self, answer: _Optional[_Union[AnswerRef, _Mapping]] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("conversation_id", "person", "thumb", "ranking", "pairwise", "correction", "withdrawal", "implicit", "reason", "source", "shown", "response_ms", "created_ms", "replaces", "objective", "comparison_id", "could_know", "reasons", "annotation_item", "key_id", "notes")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    PERSON_FIELD_NUMBER: _ClassVar[int]
    THUMB_FIELD_NUMBER: _ClassVar[int]
    RANKING_FIELD_NUMBER: _ClassVar[int]
    PAIRWISE_FIELD_NUMBER: _ClassVar[int]
    CORRECTION_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWAL_FIELD_NUMBER: _ClassVar[int]
    IMPLICIT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SHOWN_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_MS_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_ID_FIELD_NUMBER: _ClassVar[int]
    COULD_KNOW_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATION_ITEM_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    person: str
    thumb: Thumb
    ranking: Ranking
    pairwise: Pairwise
    correction: Correction
    withdrawal: Withdrawal
    implicit: Implicit
    reason: str
    source: str
    shown: _containers.RepeatedCompositeFieldContainer[AnswerRef]
    response_ms: int
    created_ms: int
    replaces: str
    objective: str
    comparison_id: str
    could_know: bool
    reasons: _containers.RepeatedScalarFieldContainer[str]
    annotation_item: str
    key_id: str
    notes: str
    def __init__(self, conversation_id: _Optional[str] = ..., person: _Optional[str] = ..., thumb: _Optional[_Union[Thumb, _Mapping]] = ..., ranking: _Optional[_Union[Ranking, _Mapping]] = ..., pairwise: _Optional[_Union[Pairwise, _Mapping]] = ..., correction: _Optional[_Union[Correction, _Mapping]] = ..., withdrawal: _Optional[_Union[Withdrawal, _Mapping]] = ..., implicit: _Optional[_Union[Implicit, _Mapping]] = ..., reason: _Optional[str] = ..., source: _Optional[str] = ..., shown: _Optional[_Iterable[_Union[AnswerRef, _Mapping]]] = ..., response_ms: _Optional[int] = ..., created_ms: _Optional[int] = ..., replaces: _Optional[str] = ..., objective: _Optional[str] = ..., comparison_id: _Optional[str] = ..., could_know: _Optional[bool] = ..., reasons: _Optional[_Iterable[str]] = ..., annotation_item: _Optional[str] = ..., key_id: _Optional[str] = ..., notes: _Optional[str] = ...) -> None: ...

class Sealed(_message.Message):
    __slots__ = ("kind", "conversation_id", "person", "at_ms", "key_id", "content")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Sealed.Kind]
        KIND_COMPLETION: _ClassVar[Sealed.Kind]
        KIND_FEEDBACK: _ClassVar[Sealed.Kind]
    KIND_UNSPECIFIED: Sealed.Kind
    KIND_COMPLETION: Sealed.Kind
    KIND_FEEDBACK: Sealed.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    PERSON_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    kind: Sealed.Kind
    conversation_id: str
    person: str
    at_ms: int
    key_id: str
    content: bytes
    def __init__(self, kind: _Optional[_Union[Sealed.Kind, str]] = ..., conversation_id: _Optional[str] = ..., person: _Optional[str] = ..., at_ms: _Optional[int] = ..., key_id: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class Erasure(_message.Message):
    __slots__ = ("conversation_id", "person", "erased_ms")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    PERSON_FIELD_NUMBER: _ClassVar[int]
    ERASED_MS_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    person: str
    erased_ms: int
    def __init__(self, conversation_id: _Optional[str] = ..., person: _Optional[str] = ..., erased_ms: _Optional[int] = ...) -> None: ...

class VersionChange(_message.Message):
    __slots__ = ("version", "state", "previous", "reason", "changed_ms", "by")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CHANGED_MS_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    version: str
    state: str
    previous: str
    reason: str
    changed_ms: int
    by: str
    def __init__(self, version: _Optional[str] = ..., state: _Optional[str] = ..., previous: _Optional[str] = ..., reason: _Optional[str] = ..., changed_ms: _Optional[int] = ..., by: _Optional[str] = ...) -> None: ...

class Imported(_message.Message):
    __slots__ = ("format", "file", "row", "id", "at_ms", "other")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    format: str
    file: str
    row: int
    id: str
    at_ms: int
    other: Json
    def __init__(self, format: _Optional[str] = ..., file: _Optional[str] = ..., row: _Optional[int] = ..., id: _Optional[str] = ..., at_ms: _Optional[int] = ..., other: _Optional[_Union[Json, _Mapping]] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("schema_version", "event_id", "completion", "feedback", "version_change", "erasure", "sealed", "traceparent", "imported")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    VERSION_CHANGE_FIELD_NUMBER: _ClassVar[int]
    ERASURE_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    event_id: str
    completion: Completion
    feedback: Feedback
    version_change: VersionChange
    erasure: Erasure
    sealed: Sealed
    traceparent: str
    imported: Imported
    def __init__(self, schema_version: _Optional[int] = ..., event_id: _Optional[str] = ..., completion: _Optional[_Union[Completion, _Mapping]] = ..., feedback: _Optional[_Union[Feedback, _Mapping]] = ..., version_change: _Optional[_Union[VersionChange, _Mapping]] = ..., erasure: _Optional[_Union[Erasure, _Mapping]] = ..., sealed: _Optional[_Union[Sealed, _Mapping]] = ..., traceparent: _Optional[str] = ..., imported: _Optional[_Union[Imported, _Mapping]] = ...) -> None: ...
