"""The console's rows of the table of operations: how learning fares, and what steers it."""

from services.chat.api.operation import Operation
from services.chat.console.replies import (
    ConsoleHistory,
    ConsoleOverview,
    ConsoleUpdate,
    ConsoleVersions,
    ConversationSearch,
)
from services.chat.console.reports import VersionReport
from services.chat.console.search import ReadQuery, SearchQuery
from services.chat.console.service import HistoryQuery
from services.chat.conversations.service import Conversation
from services.chat.learning import LearningState, PauseRequest, WeightsRequest

CONSOLE = (
    Operation(
        name="learning",
        summary="Whether the models learn, and what each objective counts.",
        method="GET",
        path="/v1/learning",
        requires="read",
        response=LearningState,
    ),
    Operation(
        name="pause_learning",
        summary="Neither model learns from now on, whatever is restarted; votes are taken, and wait.",
        method="POST",
        path="/v1/learning/pause",
        requires="operator",
        body=PauseRequest,
        response=LearningState,
        errors=(400, 413, 415),
    ),
    Operation(
        name="resume_learning",
        summary="Both models learn again, first of all from the votes that waited.",
        method="POST",
        path="/v1/learning/resume",
        requires="operator",
        response=LearningState,
    ),
    Operation(
        name="set_reward_weights",
        summary="Change what objectives count, from the trainer's next cycle on.",
        method="PUT",
        path="/v1/learning/weights",
        requires="operator",
        body=WeightsRequest,
        response=LearningState,
        errors=(400, 409, 413, 415),
    ),
    Operation(
        name="console_overview",
        summary="How it stands: what serves, votes and those that wait, from a click to a live version, the trainer.",
        method="GET",
        path="/v1/console",
        requires="read",
        response=ConsoleOverview,
        errors=(503,),
    ),
    Operation(
        name="console_versions",
        summary="What is known of every version: what the gate and the trainer measured, and what people think of it.",
        method="GET",
        path="/v1/console/versions",
        requires="read",
        response=ConsoleVersions,
        errors=(503,),
    ),
    Operation(
        name="console_history",
        summary="What the gate decided and the engine began to serve or refused, and why, the newest first.",
        method="GET",
        path="/v1/console/history",
        requires="read",
        query=HistoryQuery,
        response=ConsoleHistory,
        errors=(400, 503),
    ),
    Operation(
        name="watch_console",
        summary="How it stands and all versions, and then whatever of it changes, at most once a second.",
        method="GET",
        path="/v1/console/watch",
        requires="read",
        response="text/event-stream",
        stream=ConsoleUpdate,
        errors=(429,),
    ),
    Operation(
        name="version_report",
        summary="What the gate found of a version: each check, by how much, and answers side by side.",
        method="GET",
        path="/v1/versions/{version}/report",
        requires="operator",
        response=VersionReport,
        errors=(404, 503),
    ),
    Operation(
        name="search_conversations",
        summary="Where words stand in what people asked and were answered, the newest first, a bounded part at a time.",
        method="GET",
        path="/v1/console/conversations",
        requires="operator",
        query=SearchQuery,
        response=ConversationSearch,
        errors=(400, 503),
    ),
    Operation(
        name="console_conversation",
        summary="A person's conversation, as they read it themselves.",
        method="GET",
        path="/v1/console/conversations/{person}/{conversation_id:path}",
        requires="operator",
        query=ReadQuery,
        response=Conversation,
        errors=(400, 404, 503),
    ),
)
