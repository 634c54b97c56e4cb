"""Events of the log as rows of the conversations' database, and as their person reads them; sealed where they are."""

from typing import TYPE_CHECKING, Any

import orjson

from rlhf_online.errors import KeysUnavailable, ReadModelUnavailable, UndecodableEvent
from rlhf_online.events import Completion, Feedback, Message, Pairwise, Ranking
from services.chat.feedback.own_votes import sent

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

TITLE = 80
"""Characters of the first question that name a conversation."""


def exchange_row(exchange: Completion) -> tuple[Any, ...]:
    asked = next((message.content for message in exchange.messages if message.role == "user"), "")
    said = {
        "completion_id": exchange.completion_id,
        "started_ms": exchange.started_ms,
        "finished_ms": exchange.finished_ms,
        "comparison_id": exchange.comparison_id,
        "slot": exchange.slot,
        "messages": [_message(message) for message in exchange.messages],
        "answers": [
            {
                "index": answer.index,
                "text": answer.text,
                "reasoning": answer.reasoning,
                "finish_reason": answer.finish_reason,
                "versions": list(dict.fromkeys(span.policy_version for span in answer.spans)),
            }
            for answer in exchange.answers
        ],
    }
    return (
        exchange.completion_id,
        exchange.person,
        exchange.conversation_id,
        exchange.started_ms,
        exchange.finished_ms,
        exchange.comparison_id,
        " ".join(asked.split())[:TITLE],
        orjson.dumps(said),
    )


def vote_row(event_id: str, vote: Feedback) -> tuple[Any, ...]:
    return (
        event_id,
        vote.person,
        vote.answers()[0].completion_id,
        vote.comparison_id,
        isinstance(vote.kind, Pairwise | Ranking),
        vote.created_ms,
        orjson.dumps(sent(event_id, vote)),
    )


def sealed(keys: "Keyring | None", person: str, said: bytes, about: str) -> bytes | None:
    """What a row holds of it; None where the person's key was deleted meanwhile. Raises KeysUnavailable."""
    return said if keys is None else keys.seal_for(person, said, about)


def opened(keys: "Keyring | None", person: str, said: bytes, about: str) -> bytes | None:
    """What was said; None where the person's key was deleted meanwhile. Raises ReadModelUnavailable."""
    if keys is None:
        return said
    try:
        return keys.open_for(person, said, about)
    except (KeysUnavailable, UndecodableEvent) as error:
        raise ReadModelUnavailable(str(error)) from error


def titled(conversation_id: str) -> str:
    """What a sealed title is about."""
    return f"title {conversation_id}"


def opened_title(keys: "Keyring | None", person: str, conversation_id: str, title: str | bytes) -> str:
    """Raises ReadModelUnavailable."""
    if isinstance(title, str):
        return title
    return (opened(keys, person, title, titled(conversation_id)) or b"").decode()


def _message(message: Message) -> dict[str, Any]:
    other = orjson.loads(message.other) if message.other else {}
    return {"role": message.role, "content": message.content, **other}
