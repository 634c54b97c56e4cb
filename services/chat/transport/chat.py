"""What the handlers, HTTP and gRPC, are wired to, and whether it is ready."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from rlhf_online.config import ChatSettings
from services.chat.access.authorization import Authorization
from services.chat.access.keys import Keys
from services.chat.access.origins import Origins
from services.chat.access.secrets import Secrets
from services.chat.annotation.service import Annotation
from services.chat.canary import Canaries
from services.chat.comparisons.questions import Questions
from services.chat.comparisons.service import Comparisons
from services.chat.completions.gateway import Gateway
from services.chat.completions.responses import Readiness
from services.chat.completions.rollouts import Rollouts
from services.chat.console.service import Console
from services.chat.conversations.people import People
from services.chat.conversations.service import Conversations
from services.chat.exporter import Exporter
from services.chat.feedback.own_votes import OwnVotes
from services.chat.feedback.service import FeedbackService
from services.chat.learning import Learning
from services.chat.version_watch import VersionWatch
from services.chat.versions import Versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What the handlers, HTTP and gRPC, are wired to."""

    settings: ChatSettings
    gateway: Gateway
    feedback: FeedbackService
    votes: OwnVotes
    rollouts: Rollouts
    comparisons: Comparisons
    conversations: Conversations
    people: People
    annotation: Annotation
    questions: Questions
    versions: Versions
    watch: VersionWatch
    learning: Learning
    canaries: Canaries
    console: Console
    authorization: Authorization
    keys: Keys
    origins: Origins
    exporter: Exporter
    collector: CollectorRegistry
    secrets: Secrets
    connections: int
    """The most over HTTP, and over gRPC."""


def readiness(chat: Chat) -> Readiness:
    """Whether people can be answered, by the version that others answer with, and the log takes events."""
    engine, writer, pod = chat.gateway.engine, chat.gateway.writer, chat.gateway.engine.pod
    ready, behind = engine.state == "ready", engine.pod.behind
    return {
        "ready": ready and not behind and writer.healthy,
        "state": engine.state,
        "message": behind if ready else str(chat.gateway.not_ready()),
        "log": "ok" if writer.healthy else "the event log did not take the last events: see the service's log",
        "serving": engine.serving,
        "model": engine.model_name,
        "restarts": engine.restarts,
        "lag_s": round(pod.lag_s, 1),
        "could_not": dict(pod.could_not),
        "versions": pod.store.failure or "ok",
        "secrets": chat.secrets.check(),
    }
