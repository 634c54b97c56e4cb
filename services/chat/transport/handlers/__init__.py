"""What each operation does over HTTP, a class a subject; the methods have the operations' names."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from services.chat.api.operations import OPERATIONS
from services.chat.transport.chat import Chat
from services.chat.transport.handlers.annotation import AnnotationHandlers
from services.chat.transport.handlers.canary import CanaryHandlers
from services.chat.transport.handlers.comparisons import ComparisonHandlers
from services.chat.transport.handlers.completions import CompletionHandlers
from services.chat.transport.handlers.console import ConsoleHandlers
from services.chat.transport.handlers.conversations import ConversationHandlers
from services.chat.transport.handlers.feedback import FeedbackHandlers
from services.chat.transport.handlers.learning import LearningHandlers
from services.chat.transport.handlers.operations import OperationHandlers
from services.chat.transport.handlers.versions import VersionHandlers

Handler = Callable[[Request], Awaitable[Response]]
SUBJECTS = (
    AnnotationHandlers,
    CanaryHandlers,
    ComparisonHandlers,
    CompletionHandlers,
    ConsoleHandlers,
    ConversationHandlers,
    FeedbackHandlers,
    LearningHandlers,
    OperationHandlers,
    VersionHandlers,
)


def handlers(chat: Chat) -> dict[str, Handler]:
    """Operation → what answers it: the method of that name, which exactly one subject has."""
    made = [subject(chat) for subject in SUBJECTS]
    found: dict[str, Handler] = {}
    for operation in OPERATIONS:
        [found[operation.name]] = (getattr(one, operation.name) for one in made if hasattr(one, operation.name))
    return found
