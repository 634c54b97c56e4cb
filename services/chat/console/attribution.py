"""Who has learned from what, for operators: `rlhf_online.attribution`, from this service's log and the versions."""

from collections.abc import Callable
from typing import TypeVar

from rlhf_online.attribution.replies import CompletionTrace, PersonData, VersionData
from rlhf_online.attribution.search import Place
from rlhf_online.attribution.trace import person_data, trace, version_data
from rlhf_online.errors import FileDamaged, InvalidInput, UnknownVersion
from rlhf_online.versions.registry import Registry
from services.chat.bodies.api_error import ApiError, unavailable
from services.chat.conversations.store import ConversationStore
from services.chat.feedback.history import VoteHistory

T = TypeVar("T")


class Attribution:
    """Its calls read files: handlers run them in a thread. All raise ApiError, 503 while they cannot be read."""

    def __init__(self, history: VoteHistory, store: ConversationStore, registry: Registry) -> None:
        self._history = history
        self._store = store
        self._registry = registry

    def trace(self, completion_id: str) -> CompletionTrace:
        """Raises ApiError: 404, 503; ReadModelUnavailable."""
        self._store.catch_up()
        found = self._history.found(completion_id)
        if (asked := found.completion) is not None:
            erased_ms = self._store.erased_ms(asked.person, asked.conversation_id)
            found.erased_ms = erased_ms if erased_ms >= asked.started_ms else 0

        def segment(place: Place) -> str:
            return self._history.segment(place.offset)

        try:
            return _readable(lambda: trace(completion_id, found, self._registry, segment=segment))
        except InvalidInput as error:
            raise ApiError(str(error), status=404, param="completion_id", code="completion_not_found") from error

    def version(self, version: str) -> VersionData:
        """Raises ApiError: 404, 503."""
        try:
            return _readable(lambda: version_data(version, self._registry))
        except UnknownVersion as error:
            raise ApiError(str(error), status=404, param="version", code="version_not_found") from error

    def person(self, person: str) -> PersonData:
        """Raises ApiError (503)."""
        return _readable(lambda: person_data(person, self._registry))


def _readable(read: Callable[[], T]) -> T:
    try:
        return read()
    except (OSError, FileDamaged) as error:
        raise unavailable(f"what versions have learned from cannot be read: {error}", "versions_unavailable") from error
