from rlhf_online.proto.rlhf.v1 import chat_pb2 as _chat_pb2
from rlhf_online.proto.rlhf.v1 import events_pb2 as _events_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetFeedbackRequest(_message.Message):
    __slots__ = ("event_id", "user")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    user: str
    def __init__(self, event_id: _Optional[str] = ..., user: _Optional[str] = ...) -> None: ...

class GetFeedbackResponse(_message.Message):
    __slots__ = ("event_id", "state", "message", "accepted_ms", "reward_version", "policy_version", "live_since_ms", "serving", "replaced_by")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_MS_FIELD_NUMBER: _ClassVar[int]
    REWARD_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIVE_SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    REPLACED_BY_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    state: str
    message: str
    accepted_ms: int
    reward_version: str
    policy_version: str
    live_since_ms: int
    serving: bool
    replaced_by: str
    def __init__(self, event_id: _Optional[str] = ..., state: _Optional[str] = ..., message: _Optional[str] = ..., accepted_ms: _Optional[int] = ..., reward_version: _Optional[str] = ..., policy_version: _Optional[str] = ..., live_since_ms: _Optional[int] = ..., serving: _Optional[bool] = ..., replaced_by: _Optional[str] = ...) -> None: ...

class ListFeedbackRequest(_message.Message):
    __slots__ = ("user", "conversation_id", "completion_id", "limit", "after")
    USER_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    user: str
    conversation_id: str
    completion_id: str
    limit: int
    after: str
    def __init__(self, user: _Optional[str] = ..., conversation_id: _Optional[str] = ..., completion_id: _Optional[str] = ..., limit: _Optional[int] = ..., after: _Optional[str] = ...) -> None: ...

class ListFeedbackResponse(_message.Message):
    __slots__ = ("data", "has_more")
    DATA_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    data: _containers.RepeatedCompositeFieldContainer[FeedbackItem]
    has_more: bool
    def __init__(self, data: _Optional[_Iterable[_Union[FeedbackItem, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class FeedbackItem(_message.Message):
    __slots__ = ("event_id", "feedback", "replaced_by")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    REPLACED_BY_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    feedback: _events_pb2.Feedback
    replaced_by: str
    def __init__(self, event_id: _Optional[str] = ..., feedback: _Optional[_Union[_events_pb2.Feedback, _Mapping]] = ..., replaced_by: _Optional[str] = ...) -> None: ...

class WithdrawFeedbackRequest(_message.Message):
    __slots__ = ("event_id", "user")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    user: str
    def __init__(self, event_id: _Optional[str] = ..., user: _Optional[str] = ...) -> None: ...

class WithdrawFeedbackResponse(_message.Message):
    __slots__ = ("event_id", "position")
    class PositionEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    position: _containers.ScalarMap[str, int]
    def __init__(self, event_id: _Optional[str] = ..., position: _Optional[_Mapping[str, int]] = ...) -> None: ...

class SendFeedbackBatchRequest(_message.Message):
    __slots__ = ("vote",)
    VOTE_FIELD_NUMBER: _ClassVar[int]
    vote: _chat_pb2.SendFeedbackRequest
    def __init__(self, vote: _Optional[_Union[_chat_pb2.SendFeedbackRequest, _Mapping]] = ...) -> None: ...

class SendFeedbackBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[FeedbackResult]
    def __init__(self, results: _Optional[_Iterable[_Union[FeedbackResult, _Mapping]]] = ...) -> None: ...

class FeedbackResult(_message.Message):
    __slots__ = ("event_id", "error")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    error: FeedbackError
    def __init__(self, event_id: _Optional[str] = ..., error: _Optional[_Union[FeedbackError, _Mapping]] = ...) -> None: ...

class FeedbackError(_message.Message):
    __slots__ = ("message", "type", "param", "code")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PARAM_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    message: str
    type: str
    param: str
    code: str
    def __init__(self, message: _Optional[str] = ..., type: _Optional[str] = ..., param: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...
