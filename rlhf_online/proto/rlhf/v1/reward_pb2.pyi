from rlhf_online.proto.rlhf.v1 import events_pb2 as _events_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Tokens(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class Conversation(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_events_pb2.Message]
    def __init__(self, messages: _Optional[_Iterable[_Union[_events_pb2.Message, _Mapping]]] = ...) -> None: ...

class ScoreItem(_message.Message):
    __slots__ = ("conversation", "prompt_tokens", "answer_text", "answer_tokens")
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_TEXT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    conversation: Conversation
    prompt_tokens: Tokens
    answer_text: str
    answer_tokens: Tokens
    def __init__(self, conversation: _Optional[_Union[Conversation, _Mapping]] = ..., prompt_tokens: _Optional[_Union[Tokens, _Mapping]] = ..., answer_text: _Optional[str] = ..., answer_tokens: _Optional[_Union[Tokens, _Mapping]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("items", "reward_version", "weights", "rules")
    class WeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    REWARD_VERSION_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoreItem]
    reward_version: str
    weights: _containers.ScalarMap[str, float]
    rules: str
    def __init__(self, items: _Optional[_Iterable[_Union[ScoreItem, _Mapping]]] = ..., reward_version: _Optional[str] = ..., weights: _Optional[_Mapping[str, float]] = ..., rules: _Optional[str] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("score", "spread", "objectives", "heads")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVES_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    score: float
    spread: float
    objectives: _containers.RepeatedScalarFieldContainer[float]
    heads: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, score: _Optional[float] = ..., spread: _Optional[float] = ..., objectives: _Optional[_Iterable[float]] = ..., heads: _Optional[_Iterable[float]] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("scores", "reward_version", "objectives", "weights", "rules_version")
    class WeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SCORES_FIELD_NUMBER: _ClassVar[int]
    REWARD_VERSION_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    RULES_VERSION_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[Score]
    reward_version: str
    objectives: _containers.RepeatedScalarFieldContainer[str]
    weights: _containers.ScalarMap[str, float]
    rules_version: str
    def __init__(self, scores: _Optional[_Iterable[_Union[Score, _Mapping]]] = ..., reward_version: _Optional[str] = ..., objectives: _Optional[_Iterable[str]] = ..., weights: _Optional[_Mapping[str, float]] = ..., rules_version: _Optional[str] = ...) -> None: ...
