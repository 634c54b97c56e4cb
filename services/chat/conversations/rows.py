"""Events of the log as rows of the conversations' database, and as their person reads them."""

from typing import Any

import orjson

from rlhf_online.events import Completion, Feedback, Message, Pairwise, Ranking
from services.chat.feedback.own_votes import sent

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


def _message(message: Message) -> dict[str, Any]:
    other = orjson.loads(message.other) if message.other else {}
    return {"role": message.role, "content": message.content, **other}
