from rlhf_online.proto.rlhf.v1 import events_pb2 as _events_pb2
from rlhf_online.proto.rlhf.v1 import feedback_pb2 as _feedback_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListConversationsRequest(_message.Message):
    __slots__ = ("user", "after")
    USER_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    user: str
    after: str
    def __init__(self, user: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class ListConversationsResponse(_message.Message):
    __slots__ = ("conversations", "more")
    CONVERSATIONS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    conversations: _containers.RepeatedCompositeFieldContainer[ConversationRow]
    more: bool
    def __init__(self, conversations: _Optional[_Iterable[_Union[ConversationRow, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class ConversationRow(_message.Message):
    __slots__ = ("conversation_id", "title", "started_ms", "changed_ms", "exchanges")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    CHANGED_MS_FIELD_NUMBER: _ClassVar[int]
    EXCHANGES_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    title: str
    started_ms: int
    changed_ms: int
    exchanges: int
    def __init__(self, conversation_id: _Optional[str] = ..., title: _Optional[str] = ..., started_ms: _Optional[int] = ..., changed_ms: _Optional[int] = ..., exchanges: _Optional[int] = ...) -> None: ...

class GetConversationRequest(_message.Message):
    __slots__ = ("conversation_id", "user", "after")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user: str
    after: str
    def __init__(self, conversation_id: _Optional[str] = ..., user: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class GetConversationResponse(_message.Message):
    __slots__ = ("conversation_id", "exchanges", "more")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    EXCHANGES_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    exchanges: _containers.RepeatedCompositeFieldContainer[Exchange]
    more: bool
    def __init__(self, conversation_id: _Optional[str] = ..., exchanges: _Optional[_Iterable[_Union[Exchange, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class Exchange(_message.Message):
    __slots__ = ("completion_id", "started_ms", "finished_ms", "comparison_id", "slot", "messages", "answers", "votes")
    COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_MS_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_ID_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    completion_id: str
    started_ms: int
    finished_ms: int
    comparison_id: str
    slot: int
    messages: _containers.RepeatedCompositeFieldContainer[_events_pb2.Message]
    answers: _containers.RepeatedCompositeFieldContainer[KeptAnswer]
    votes: _containers.RepeatedCompositeFieldContainer[_feedback_pb2.FeedbackItem]
    def __init__(self, completion_id: _Optional[str] = ..., started_ms: _Optional[int] = ..., finished_ms: _Optional[int] = ..., comparison_id: _Optional[str] = ..., slot: _Optional[int] = ..., messages: _Optional[_Iterable[_Union[_events_pb2.Message, _Mapping]]] = ..., answers: _Optional[_Iterable[_Union[KeptAnswer, _Mapping]]] = ..., votes: _Optional[_Iterable[_Union[_feedback_pb2.FeedbackItem, _Mapping]]] = ...) -> None: ...

class KeptAnswer(_message.Message):
    __slots__ = ("index", "text", "reasoning", "finish_reason", "versions")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    reasoning: str
    finish_reason: str
    versions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., reasoning: _Optional[str] = ..., finish_reason: _Optional[str] = ..., versions: _Optional[_Iterable[str]] = ...) -> None: ...

class EraseConversationRequest(_message.Message):
    __slots__ = ("conversation_id", "user")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user: str
    def __init__(self, conversation_id: _Optional[str] = ..., user: _Optional[str] = ...) -> None: ...

class EraseConversationResponse(_message.Message):
    __slots__ = ("conversation_id", "position")
    class PositionEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    position: _containers.ScalarMap[str, int]
    def __init__(self, conversation_id: _Optional[str] = ..., position: _Optional[_Mapping[str, int]] = ...) -> None: ...

class EraseEverythingRequest(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: str
    def __init__(self, user: _Optional[str] = ...) -> None: ...

class EraseEverythingResponse(_message.Message):
    __slots__ = ("person", "conversations", "position", "shredded", "versions")
    class PositionEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PERSON_FIELD_NUMBER: _ClassVar[int]
    CONVERSATIONS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SHREDDED_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    person: str
    conversations: int
    position: _containers.ScalarMap[str, int]
    shredded: bool
    versions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, person: _Optional[str] = ..., conversations: _Optional[int] = ..., position: _Optional[_Mapping[str, int]] = ..., shredded: _Optional[bool] = ..., versions: _Optional[_Iterable[str]] = ...) -> None: ...

class ExportConversationsRequest(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: str
    def __init__(self, user: _Optional[str] = ...) -> None: ...

class ExportConversationsResponse(_message.Message):
    __slots__ = ("conversation_id", "exchange", "vote")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    exchange: Exchange
    vote: _feedback_pb2.FeedbackItem
    def __init__(self, conversation_id: _Optional[str] = ..., exchange: _Optional[_Union[Exchange, _Mapping]] = ..., vote: _Optional[_Union[_feedback_pb2.FeedbackItem, _Mapping]] = ...) -> None: ...
