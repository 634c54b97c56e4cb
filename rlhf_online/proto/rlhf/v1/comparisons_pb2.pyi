from rlhf_online.proto.rlhf.v1 import events_pb2 as _events_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CompareRequest(_message.Message):
    __slots__ = ("messages", "n", "versions", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "user", "conversation_id", "profile")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_events_pb2.Message]
    n: int
    versions: _containers.RepeatedScalarFieldContainer[str]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int
    user: str
    conversation_id: str
    profile: str
    def __init__(self, messages: _Optional[_Iterable[_Union[_events_pb2.Message, _Mapping]]] = ..., n: _Optional[int] = ..., versions: _Optional[_Iterable[str]] = ..., max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., min_p: _Optional[float] = ..., seed: _Optional[int] = ..., user: _Optional[str] = ..., conversation_id: _Optional[str] = ..., profile: _Optional[str] = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("comparison_id", "conversation_id", "answers", "logged", "created")
    COMPARISON_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    LOGGED_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    comparison_id: str
    conversation_id: str
    answers: _containers.RepeatedCompositeFieldContainer[ComparedAnswer]
    logged: bool
    created: int
    def __init__(self, comparison_id: _Optional[str] = ..., conversation_id: _Optional[str] = ..., answers: _Optional[_Iterable[_Union[ComparedAnswer, _Mapping]]] = ..., logged: _Optional[bool] = ..., created: _Optional[int] = ...) -> None: ...

class ComparedAnswer(_message.Message):
    __slots__ = ("answer", "text", "reasoning", "finish_reason")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    answer: _events_pb2.AnswerRef
    text: str
    reasoning: str
    finish_reason: str
    def __init__(self, answer: _Optional[_Union[_events_pb2.AnswerRef, _Mapping]] = ..., text: _Optional[str] = ..., reasoning: _Optional[str] = ..., finish_reason: _Optional[str] = ...) -> None: ...

class StreamCompareRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: CompareRequest
    def __init__(self, request: _Optional[_Union[CompareRequest, _Mapping]] = ...) -> None: ...

class StreamCompareResponse(_message.Message):
    __slots__ = ("comparison_id", "slot", "completion_id", "delta", "reasoning", "finish_reason", "final")
    COMPARISON_ID_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    comparison_id: str
    slot: int
    completion_id: str
    delta: str
    reasoning: str
    finish_reason: str
    final: CompareResponse
    def __init__(self, comparison_id: _Optional[str] = ..., slot: _Optional[int] = ..., completion_id: _Optional[str] = ..., delta: _Optional[str] = ..., reasoning: _Optional[str] = ..., finish_reason: _Optional[str] = ..., final: _Optional[_Union[CompareResponse, _Mapping]] = ...) -> None: ...

class GetComparisonRequest(_message.Message):
    __slots__ = ("comparison_id", "user")
    COMPARISON_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    comparison_id: str
    user: str
    def __init__(self, comparison_id: _Optional[str] = ..., user: _Optional[str] = ...) -> None: ...

class GetComparisonResponse(_message.Message):
    __slots__ = ("comparison_id", "conversation_id", "answers", "voted", "tells")
    COMPARISON_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    VOTED_FIELD_NUMBER: _ClassVar[int]
    TELLS_FIELD_NUMBER: _ClassVar[int]
    comparison_id: str
    conversation_id: str
    answers: _containers.RepeatedCompositeFieldContainer[NamedAnswer]
    voted: bool
    tells: bool
    def __init__(self, comparison_id: _Optional[str] = ..., conversation_id: _Optional[str] = ..., answers: _Optional[_Iterable[_Union[NamedAnswer, _Mapping]]] = ..., voted: _Optional[bool] = ..., tells: _Optional[bool] = ...) -> None: ...

class NamedAnswer(_message.Message):
    __slots__ = ("answer", "versions")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    answer: _events_pb2.AnswerRef
    versions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, answer: _Optional[_Union[_events_pb2.AnswerRef, _Mapping]] = ..., versions: _Optional[_Iterable[str]] = ...) -> None: ...

class NextComparisonRequest(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: str
    def __init__(self, user: _Optional[str] = ...) -> None: ...

class NextComparisonResponse(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_events_pb2.Message]
    def __init__(self, messages: _Optional[_Iterable[_Union[_events_pb2.Message, _Mapping]]] = ...) -> None: ...
