"""What the service can be asked, over any transport: HTTP routes, gRPC methods and `/openapi.json` follow this table.

Each operation names the role that may call it, or says that everybody may; none can be built without saying so.
"""

from dataclasses import dataclass
from typing import Any, Literal

from services.chat.access.caller import PersonQuery, Requires
from services.chat.bodies.validation import Model
from services.chat.comparisons.questions import Question
from services.chat.comparisons.replies import Comparison, ComparisonPiece, ComparisonResult
from services.chat.comparisons.request import CompareRequest
from services.chat.completions.chat_request import ChatCompletionRequest
from services.chat.completions.responses import (
    ChatCompletion,
    ChatCompletionChunk,
    Health,
    ModelInfo,
    ModelList,
    Readiness,
)
from services.chat.completions.rollouts import RolloutRequest, RolloutResults
from services.chat.completions.text_request import CompletionRequest
from services.chat.completions.text_responses import TextCompletion, TextCompletionChunk
from services.chat.conversations.service import (
    Conversation,
    ConversationErased,
    ConversationList,
    ConversationsQuery,
)
from services.chat.feedback.batch import FeedbackBatch
from services.chat.feedback.own_votes import FeedbackList, ListFeedbackQuery
from services.chat.feedback.request import FeedbackRequest
from services.chat.feedback.service import FeedbackAccepted, FeedbackOptions
from services.chat.feedback.status import FeedbackStatus
from services.chat.version_watch import VersionNotice
from services.chat.versions import ListVersionsRequest, RollbackRequest, VersionChanged, VersionList

CHAT = "/rlhf.v1.ChatService/"
COMPARISONS = "/rlhf.v1.ComparisonService/"
FEEDBACK = "/rlhf.v1.FeedbackService/"
ADMIN = "/rlhf.v1.AdminService/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`name` is the HTTP handler's; `rpcs` are the gRPC methods that do the same.

    `response` is a typed dictionary, `stream` that of a server-sent event, or a media type. `errors` are the HTTP
    statuses with OpenAI's error as their body, but for 500, which is always possible, and those that follow from
    `requires`; a status of `also` has the response as its body.
    """

    name: str
    summary: str
    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    requires: Requires
    response: Any
    body: type[Model] | None = None
    query: type[Model] | None = None
    rpcs: tuple[str, ...] = ()
    stream: Any = None
    errors: tuple[int, ...] = ()
    also: tuple[int, ...] = ()

    @property
    def statuses(self) -> tuple[int, ...]:
        """All errors but 500."""
        refused = () if self.requires == "public" else (401, 403)
        return tuple(sorted({*self.errors, *refused}))


OPERATIONS = (
    Operation(
        name="page",
        summary="The web page: chat, and say what you think of the answers.",
        method="GET",
        path="/",
        requires="public",
        response="text/html",
    ),
    Operation(
        name="page_asset",
        summary="A file of the page: scripts, style, words. `digest` is that of all of them, which the page names.",
        method="GET",
        path="/page/{digest}/{name}",
        requires="public",
        response="*/*",
        errors=(404,),
    ),
    Operation(
        name="complete",
        summary="Chat with the model that is live; OpenAI's API.",
        method="POST",
        path="/v1/chat/completions",
        rpcs=(f"{CHAT}Complete", f"{CHAT}StreamComplete"),
        requires="chat",
        body=ChatCompletionRequest,
        response=ChatCompletion,
        stream=ChatCompletionChunk,
        errors=(400, 404, 413, 415, 429, 503, 504),
    ),
    Operation(
        name="complete_text",
        summary="Continue a text with the model that is live, without its chat template; OpenAI's older API.",
        method="POST",
        path="/v1/completions",
        rpcs=(f"{CHAT}CompleteText", f"{CHAT}StreamCompleteText"),
        requires="chat",
        body=CompletionRequest,
        response=TextCompletion,
        stream=TextCompletionChunk,
        errors=(400, 403, 404, 413, 415, 429, 503, 504),
    ),
    Operation(
        name="models",
        summary="The names that a request may give as its model.",
        method="GET",
        path="/v1/models",
        requires="chat",
        response=ModelList,
    ),
    Operation(
        name="model",
        summary="One of these names.",
        method="GET",
        path="/v1/models/{model:path}",
        requires="chat",
        response=ModelInfo,
        errors=(404,),
    ),
    Operation(
        name="feedback",
        summary="Say what you think of an answer; answered when it is on disk, also while the engine is away.",
        method="POST",
        path="/v1/feedback",
        rpcs=(f"{CHAT}SendFeedback",),
        requires="feedback",
        body=FeedbackRequest,
        response=FeedbackAccepted,
        errors=(400, 409, 413, 415, 503),
    ),
    Operation(
        name="compare",
        summary="Answers to one prompt side by side, without a word on who wrote which; vote on them by feedback.",
        method="POST",
        path="/v1/comparisons",
        rpcs=(f"{COMPARISONS}Compare", f"{COMPARISONS}StreamCompare"),
        requires="chat",
        body=CompareRequest,
        response=Comparison,
        stream=ComparisonPiece,
        errors=(400, 404, 413, 415, 429, 503, 504),
    ),
    Operation(
        name="next_comparison",
        summary="What to compare answers to next: one of the caller's own prompts, or of the operator's list.",
        method="GET",
        path="/v1/comparisons/next",
        rpcs=(f"{COMPARISONS}NextComparison",),
        requires="chat",
        query=PersonQuery,
        response=Question,
        errors=(400, 404, 503),
    ),
    Operation(
        name="comparison",
        summary="A comparison that the caller was shown, and who wrote its answers, once they were compared.",
        method="GET",
        path="/v1/comparisons/{comparison_id}",
        rpcs=(f"{COMPARISONS}GetComparison",),
        requires="chat",
        query=PersonQuery,
        response=ComparisonResult,
        errors=(400, 404),
    ),
    Operation(
        name="feedback_batch",
        summary="Many votes, one JSON object a line (NDJSON), each taken or refused by itself, in their order.",
        method="POST",
        path="/v1/feedback/batch",
        rpcs=(f"{FEEDBACK}SendFeedbackBatch",),
        requires="feedback",
        response=FeedbackBatch,
        errors=(400, 403, 413, 415),
    ),
    Operation(
        name="feedback_options",
        summary="What a vote may name: objectives, and tags that say why.",
        method="GET",
        path="/v1/feedback/options",
        requires="feedback",
        response=FeedbackOptions,
        errors=(403,),
    ),
    Operation(
        name="list_feedback",
        summary="The caller's own votes, newest first.",
        method="GET",
        path="/v1/feedback",
        rpcs=(f"{FEEDBACK}ListFeedback",),
        requires="feedback",
        query=ListFeedbackQuery,
        response=FeedbackList,
        errors=(400, 403),
    ),
    Operation(
        name="feedback_status",
        summary="Where one of the caller's votes is, and what became of it.",
        method="GET",
        path="/v1/feedback/{event_id}",
        rpcs=(f"{FEEDBACK}GetFeedback",),
        requires="feedback",
        query=PersonQuery,
        response=FeedbackStatus,
        errors=(400, 404, 503),
    ),
    Operation(
        name="edit_feedback",
        summary="Put another vote in the place of one of the caller's; `replaces` of POST says the same.",
        method="PUT",
        path="/v1/feedback/{event_id}",
        requires="feedback",
        body=FeedbackRequest,
        response=FeedbackAccepted,
        errors=(400, 404, 409, 413, 415, 503),
    ),
    Operation(
        name="withdraw_feedback",
        summary="Take one of the caller's votes back; again and again it is the same.",
        method="DELETE",
        path="/v1/feedback/{event_id}",
        rpcs=(f"{FEEDBACK}WithdrawFeedback",),
        requires="feedback",
        query=PersonQuery,
        response=FeedbackAccepted,
        errors=(400, 404, 503),
    ),
    Operation(
        name="conversations",
        summary="The caller's own conversations, those that changed last first.",
        method="GET",
        path="/v1/conversations",
        requires="chat",
        query=ConversationsQuery,
        response=ConversationList,
        errors=(400, 503),
    ),
    Operation(
        name="conversation",
        summary="One of the caller's conversations: what was asked, answered and thought of it.",
        method="GET",
        path="/v1/conversations/{conversation_id:path}",
        requires="chat",
        query=ConversationsQuery,
        response=Conversation,
        errors=(400, 404, 503),
    ),
    Operation(
        name="erase",
        summary="Erase one of the caller's conversations: what was not learned from yet will not be.",
        method="DELETE",
        path="/v1/conversations/{conversation_id:path}",
        requires="chat",
        query=PersonQuery,
        response=ConversationErased,
        errors=(400, 403, 404, 503),
    ),
    Operation(
        name="export",
        summary="All of the caller's exchanges and votes, a JSON object a line.",
        method="GET",
        path="/v1/export",
        requires="chat",
        query=PersonQuery,
        response="application/x-ndjson",
        errors=(400, 503),
    ),
    Operation(
        name="list_versions",
        summary="Every version of the weights, and what serves.",
        method="GET",
        path="/v1/versions",
        rpcs=(f"{ADMIN}ListVersions",),
        requires="read",
        query=ListVersionsRequest,
        response=VersionList,
        errors=(400,),
    ),
    Operation(
        name="watch_versions",
        summary="What serves now, and each version that begins to serve or is refused from now on, as it happens.",
        method="GET",
        path="/v1/versions/watch",
        rpcs=(f"{ADMIN}WatchVersions",),
        requires="read",
        response="text/event-stream",
        stream=VersionNotice,
        errors=(429,),
    ),
    Operation(
        name="promote",
        summary="Make a version the live one.",
        method="POST",
        path="/v1/versions/{version}/promote",
        rpcs=(f"{ADMIN}Promote",),
        requires="operator",
        response=VersionChanged,
        errors=(404, 409),
    ),
    Operation(
        name="rollback",
        summary="Leave the live version for the one that was live before it, and mark it failed.",
        method="POST",
        path="/v1/versions/rollback",
        rpcs=(f"{ADMIN}Rollback",),
        requires="operator",
        body=RollbackRequest,
        response=VersionChanged,
        errors=(400, 409, 413, 415),
    ),
    Operation(
        name="sample",
        summary="Fresh answers for the trainer, written when people leave the engine room, and not logged.",
        method="POST",
        path="/v1/rollouts",
        requires="operator",
        body=RolloutRequest,
        response=RolloutResults,
        errors=(400, 409, 413, 415, 503),
    ),
    Operation(
        name="healthz",
        summary="Whether the process lives.",
        method="GET",
        path="/healthz",
        requires="public",
        response=Health,
    ),
    Operation(
        name="readyz",
        summary="Whether people can be answered and the log takes events, and what is missing.",
        method="GET",
        path="/readyz",
        requires="public",
        response=Readiness,
        also=(503,),
    ),
    Operation(
        name="expose",
        summary="Metrics for Prometheus.",
        method="GET",
        path="/metrics",
        requires="public",
        response="text/plain",
    ),
    Operation(
        name="openapi",
        summary="This description.",
        method="GET",
        path="/openapi.json",
        requires="public",
        response="application/json",
    ),
    Operation(
        name="reference",
        summary="This description as a page for people.",
        method="GET",
        path="/docs",
        requires="public",
        response="text/html",
    ),
)
BY_RPC = {rpc: operation for operation in OPERATIONS for rpc in operation.rpcs}
