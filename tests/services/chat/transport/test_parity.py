"""gRPC has every field that HTTP has: what is added to a model and not to its message, or the reverse, fails."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from rlhf_online.proto.rlhf.v1 import (
    admin_pb2,
    chat_pb2,
    comparisons_pb2,
    conversations_pb2,
    events_pb2,
    feedback_pb2,
    versions_pb2,
)
from services.chat import versions
from services.chat.access.caller import PersonQuery
from services.chat.bodies.api_error import ErrorDetail
from services.chat.comparisons import questions, replies
from services.chat.comparisons.request import CompareRequest
from services.chat.completions import responses, text_responses
from services.chat.completions.chat_request import ChatCompletionRequest, Message
from services.chat.completions.text_request import CompletionRequest
from services.chat.conversations import service as kept
from services.chat.conversations.service import ConversationsQuery
from services.chat.feedback import batch, own_votes
from services.chat.feedback import request as feedback
from services.chat.feedback.service import FeedbackAccepted
from services.chat.feedback.status import FeedbackStatus
from services.chat.version_watch import ServingChange, VersionNotice
from tests.services.chat.transport.test_transports import CASES


@dataclass(frozen=True)
class Twins:
    """Objects of HTTP and the messages that say the same. `only_http` and `only_grpc` say why one has no twin."""

    http: tuple[Any, ...]
    grpc: tuple[Any, ...]
    only_http: dict[str, str] = field(default_factory=dict)
    only_grpc: dict[str, str] = field(default_factory=dict)


TWINS = {
    "chat": Twins(
        (ChatCompletionRequest,),
        (chat_pb2.CompleteRequest,),
        only_http={"stream": "a method of its own", "stream_options": "the end of a stream says all"},
    ),
    "messages": Twins(
        (Message,),
        (events_pb2.Message,),
        only_grpc={"other": "HTTP takes any field here"},
    ),
    "answers": Twins(
        (responses.ChatCompletion, responses.Provenance, responses.ChatChoice, responses.AssistantMessage),
        (chat_pb2.CompleteResponse, chat_pb2.Choice),
        only_http={
            "id": "completion_id",
            "content": "text",
            **dict.fromkeys(("rlhf", "message"), "its fields stand one level higher"),
            **dict.fromkeys(("object", "role", "refusal"), "always the same"),
        },
        only_grpc={
            "text": "content",
            "spans": "versions, with the tokens",
            **dict.fromkeys(("prompt_tokens", "completion_tokens"), "as in usage"),
        },
    ),
    "pieces of a stream": Twins(
        (responses.ChatChoice, responses.AssistantMessage),
        (chat_pb2.StreamCompleteResponse,),
        only_http={
            "content": "delta",
            "message": "its fields stand one level higher",
            **dict.fromkeys(("role", "refusal"), "always the same"),
        },
        only_grpc={"delta": "content", "completion_id": "the chunk's id", "final": "HTTP's last chunk"},
    ),
    "text": Twins(
        (CompletionRequest,),
        (chat_pb2.CompleteTextRequest,),
        only_http={
            "stream": "a method of its own",
            "stream_options": "the end of a stream says all",
            **dict.fromkeys(("echo", "suffix", "best_of"), "known to be refused"),
        },
        only_grpc={"prompt_token_ids": "HTTP's prompt may be tokens"},
    ),
    "answers to a text": Twins(
        (text_responses.TextCompletion, responses.Provenance, text_responses.TextChoice),
        (chat_pb2.CompleteTextResponse, chat_pb2.TextChoice),
        only_http={
            "id": "completion_id",
            "rlhf": "its fields stand one level higher",
            "object": "always the same",
        },
        only_grpc={"spans": "versions, with the tokens"},
    ),
    "pieces of a text": Twins(
        (text_responses.TextChoice,),
        (chat_pb2.StreamCompleteTextResponse,),
        only_http={"prompt_token_ids": "told at the end"},
        only_grpc={"completion_id": "the chunk's id", "final": "HTTP's last chunk"},
    ),
    "log-probabilities of a text": Twins((text_responses.TextLogprobs,), (chat_pb2.TextLogprobs,)),
    "feedback": Twins(
        (feedback.FeedbackRequest,),
        (chat_pb2.SendFeedbackRequest, events_pb2.Feedback),
        only_grpc={
            "feedback": "its fields stand one level higher",
            **dict.fromkeys(
                ("person", "created_ms", "comparison_id", "could_know", "annotation_item", "key_id", "notes"),
                "the log's; refused",
            ),
        },
    ),
    "an answer's name": Twins((feedback.AnswerRef,), (events_pb2.AnswerRef,)),
    "thumb": Twins((feedback.Thumb,), (events_pb2.Thumb,)),
    "ranking": Twins((feedback.Ranking,), (events_pb2.Ranking,)),
    "pairwise": Twins((feedback.Pairwise,), (events_pb2.Pairwise,)),
    "correction": Twins((feedback.Correction,), (events_pb2.Correction,)),
    "implicit": Twins((feedback.Implicit,), (events_pb2.Implicit,)),
    "withdrawal": Twins((feedback.Withdrawal,), (events_pb2.Withdrawal,)),
    "a vote that was accepted": Twins((FeedbackAccepted,), (chat_pb2.SendFeedbackResponse,)),
    "what to compare": Twins(
        (CompareRequest,), (comparisons_pb2.CompareRequest,), only_http={"stream": "a method of its own"}
    ),
    "a comparison": Twins(
        (replies.Comparison, replies.ComparedAnswer),
        (comparisons_pb2.CompareResponse, comparisons_pb2.ComparedAnswer),
        only_http={"object": "always the same"},
    ),
    "what serves": Twins((VersionNotice, ServingChange), (admin_pb2.WatchVersionsResponse, events_pb2.VersionChange)),
    "pieces of a comparison": Twins((replies.ComparisonPiece,), (comparisons_pb2.StreamCompareResponse,)),
    "which comparison": Twins(
        (PersonQuery,), (comparisons_pb2.GetComparisonRequest,), only_grpc={"comparison_id": "in the path"}
    ),
    "who may be asked": Twins((PersonQuery,), (comparisons_pb2.NextComparisonRequest,)),
    "what to compare answers to": Twins((questions.Question,), (comparisons_pb2.NextComparisonResponse,)),
    "what was compared": Twins(
        (replies.ComparisonResult, replies.NamedAnswer),
        (comparisons_pb2.GetComparisonResponse, comparisons_pb2.NamedAnswer),
    ),
    "what became of a vote": Twins((FeedbackStatus,), (feedback_pb2.GetFeedbackResponse,)),
    "one's votes": Twins((own_votes.FeedbackList,), (feedback_pb2.ListFeedbackResponse,)),
    "votes at once": Twins((batch.FeedbackBatch,), (feedback_pb2.SendFeedbackBatchResponse,)),
    "a vote of many": Twins((batch.FeedbackResult,), (feedback_pb2.FeedbackResult,)),
    "why it was refused": Twins((ErrorDetail,), (feedback_pb2.FeedbackError,)),
    "which votes": Twins((own_votes.ListFeedbackQuery,), (feedback_pb2.ListFeedbackRequest,)),
    "which vote": Twins((PersonQuery,), (feedback_pb2.GetFeedbackRequest,), only_grpc={"event_id": "HTTP's path"}),
    "which vote is taken back": Twins(
        (PersonQuery,), (feedback_pb2.WithdrawFeedbackRequest,), only_grpc={"event_id": "HTTP's path"}
    ),
    "it was taken back": Twins((FeedbackAccepted,), (feedback_pb2.WithdrawFeedbackResponse,)),
    "one of one's votes": Twins(
        (own_votes.FeedbackItem,),
        (feedback_pb2.FeedbackItem, events_pb2.Feedback),
        only_grpc={"feedback": "its fields stand one level higher", "person": "not told", "key_id": "not told"},
    ),
    "whose conversations": Twins((ConversationsQuery,), (conversations_pb2.ListConversationsRequest,)),
    "conversations": Twins((kept.ConversationList,), (conversations_pb2.ListConversationsResponse,)),
    "a conversation in a list": Twins((kept.ConversationRow,), (conversations_pb2.ConversationRow,)),
    "which conversation": Twins(
        (ConversationsQuery,),
        (conversations_pb2.GetConversationRequest,),
        only_grpc={"conversation_id": "HTTP's path"},
    ),
    "a conversation": Twins((kept.Conversation,), (conversations_pb2.GetConversationResponse,)),
    "an exchange": Twins((kept.Exchange,), (conversations_pb2.Exchange,)),
    "an answer that was kept": Twins((kept.KeptAnswer,), (conversations_pb2.KeptAnswer,)),
    "which conversation is erased": Twins(
        (PersonQuery,), (conversations_pb2.EraseConversationRequest,), only_grpc={"conversation_id": "HTTP's path"}
    ),
    "it was erased": Twins((kept.ConversationErased,), (conversations_pb2.EraseConversationResponse,)),
    "who exports": Twins((PersonQuery,), (conversations_pb2.ExportConversationsRequest,)),
    "which versions": Twins((versions.ListVersionsRequest,), (admin_pb2.ListVersionsRequest,)),
    "versions": Twins((versions.VersionList,), (admin_pb2.ListVersionsResponse,)),
    "a version": Twins(
        (versions.VersionRow,),
        (admin_pb2.VersionInfo, versions_pb2.VersionManifest),
        only_grpc={
            "manifest": "its fields stand one level higher",
            **dict.fromkeys(("files", "probe"), "what the engine checks"),
        },
    ),
    "promote": Twins((versions.VersionChanged,), (admin_pb2.PromoteResponse,)),
    "roll back": Twins((versions.RollbackRequest,), (admin_pb2.RollbackRequest,)),
    "rolled back": Twins((versions.VersionChanged,), (admin_pb2.RollbackResponse,)),
}


@pytest.mark.parametrize("twins", TWINS.values(), ids=TWINS.keys())
def test_both_have_the_same_fields(twins: Twins) -> None:
    http = {name for kind in twins.http for name in meant(kind)}
    grpc = {field.name for kind in twins.grpc for field in kind.DESCRIPTOR.fields}
    assert http - grpc == twins.only_http.keys()
    assert grpc - http == twins.only_grpc.keys()


@pytest.mark.parametrize(
    ("operation", "twins", "request_"),
    [("complete", "chat", ChatCompletionRequest), ("complete_text", "text", CompletionRequest)],
)
def test_every_field_of_a_request_is_tried_over_both(operation: str, twins: str, request_: type) -> None:
    served = (case for case in CASES.values() if case.operation == operation and case.status == 200)
    tried = {name for case in served for name in case.body}
    assert set(meant(request_)) - tried == TWINS[twins].only_http.keys()


def meant(kind: type) -> list[str]:
    """The names of the fields that mean something here: of OpenAI's, some are accepted and ignored."""
    if issubclass(kind, BaseModel):
        return [name for name, field in kind.model_fields.items() if field.annotation is not Any]
    return list(kind.__annotations__)
