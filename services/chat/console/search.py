"""Words in people's conversations, for operators: whose they are is told as a hash, and the service's log says that one
looked.

There is no index of words, which would be another copy of what people may have erased: one request reads a bounded part
of the conversations that are kept, the newest first, and says where to go on.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import orjson
import structlog
from pydantic import AfterValidator, Field

from services.chat.bodies.api_error import ApiError
from services.chat.bodies.validation import FROM_QUERY, Integer, Mistake, Model, Within, validate
from services.chat.console.replies import ConversationSearch, FoundExchange
from services.chat.conversations.service import Conversation, read_page
from services.chat.conversations.store import ConversationStore

MOST = 50
"""Found in one request."""
SEARCHED, SEARCHED_BYTES = 2_000, 8 << 20
"""Exchanges, and bytes of them, that one request reads at most."""
BATCH = 64
AROUND = 80
"""Characters on each side of the words."""
NEWEST = (2**62, "")


def _words(query: str) -> str:
    if not query.strip():
        raise Mistake("expected some words, got none")
    return query.strip()


def _place(after: str) -> str:
    if after and not re.fullmatch(r"[0-9]{1,18}:.+", after):
        raise Mistake("expected what `next` said")
    return after


class SearchQuery(Model):
    """What to look for, and from where on."""

    query: Annotated[str, AfterValidator(_words)] = Field(
        max_length=200, description="The words, as they stand there; upper and lower case are the same."
    )
    after: Annotated[str, AfterValidator(_place)] = Field(
        default="", max_length=600, description="The `next` of the reply before; by default from the newest on."
    )
    limit: Annotated[Integer, Within(1, MOST), FROM_QUERY] = Field(default=MOST, description="How many at most.")


class ReadQuery(Model):
    """Which page."""

    after: str = Field(default="", max_length=512, description="The last one of the page before; by default none.")


class Search:
    """In what `store` keeps: what was asked under a name."""

    def __init__(self, store: ConversationStore) -> None:
        self._store = store
        self._log = structlog.get_logger()

    def find(self, values: Mapping[str, Any], key_id: str) -> ConversationSearch:
        """Raises ApiError (400), ReadModelUnavailable."""
        query = validate(SearchQuery, values)
        self._log.info("conversations were searched", key=key_id)
        self._store.catch_up()
        words, found, place = query.query.casefold(), list[FoundExchange](), _parsed(query.after)
        for finished_ms, completion_id, person, conversation_id, said in self._newest(place):
            place = finished_ms, completion_id
            for text in _new_texts(said):
                if words in text.casefold():
                    found.append(
                        {
                            "person": person,
                            "conversation_id": conversation_id,
                            "completion_id": completion_id,
                            "finished_ms": finished_ms,
                            "snippet": _snippet(text, query.query),
                        }
                    )
                    break
            if len(found) == query.limit:
                break
        more = self._store.newest(place, 1)
        return {"found": found, "next": f"{place[0]}:{place[1]}" if more else ""}

    def read(self, person: str, conversation_id: str, values: Mapping[str, Any], key_id: str) -> Conversation:
        """Raises ApiError: 400, 404; ReadModelUnavailable."""
        after = validate(ReadQuery, values).after
        self._log.info("a conversation was read by an operator", key=key_id)
        self._store.catch_up()
        if (found := read_page(self._store, person, conversation_id, after)) is None:
            message = "there is no such conversation of this person: it may have been erased"
            raise ApiError(message, status=404, param="conversation_id", code="conversation_not_found")
        return found

    def _newest(self, place: tuple[int, str]) -> Iterator[tuple[Any, ...]]:
        """Exchanges behind that place, as many as one request may read."""
        count = size = 0
        while count < SEARCHED and size < SEARCHED_BYTES and (rows := self._store.newest(place, BATCH)):
            for row in rows:
                yield row
                count, size = count + 1, size + len(row[-1])
                if size >= SEARCHED_BYTES:
                    return
            place = rows[-1][:2]


def _new_texts(said: bytes) -> Iterator[str]:
    """What was asked last, and the answers: what came before them is an exchange of its own."""
    exchange = orjson.loads(said)
    for message in reversed(exchange["messages"]):
        if message["role"] == "assistant":
            break
        if isinstance(message["content"], str):
            yield message["content"]
    for answer in exchange["answers"]:
        yield answer["text"]


def _snippet(text: str, words: str) -> str:
    at = re.search(re.escape(words), text, re.IGNORECASE)
    begin = max(0, at.start() - AROUND) if at else 0
    end = (at.end() if at else 0) + AROUND
    return " ".join(text[begin:end].split())


def _parsed(after: str) -> tuple[int, str]:
    ms, _, completion_id = after.partition(":")
    return (int(ms), completion_id) if after else NEWEST
