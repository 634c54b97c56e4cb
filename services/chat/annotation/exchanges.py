"""Answers of the log, as items are made of them: what is shown, and whose it was."""

from dataclasses import dataclass
from typing import Any

import orjson

from rlhf_online.events import Completion
from services.chat.comparisons.replies import ComparedAnswer


@dataclass(frozen=True, slots=True)
class Exchange:
    """A prompt and its answers, by their index.

    `prompt` tells prompts apart; `compared`: shown in a comparison; `origin`: see `events.origin`.
    """

    messages: list[dict[str, Any]]
    answers: dict[int, ComparedAnswer]
    prompt: int
    compared: bool
    origin: str
    asked_ms: int


def exchange(completion: Completion) -> Exchange:
    return Exchange(
        messages=[_message(message.role, message.content, message.other) for message in completion.messages],
        answers={
            answer.index: {
                "answer": {"completion_id": completion.completion_id, "index": answer.index},
                "text": answer.text,
                "reasoning": answer.reasoning,
                "finish_reason": answer.finish_reason,
            }
            for answer in completion.answers
        },
        prompt=hash(completion.prompt_token_ids),
        compared=bool(completion.comparison_id),
        origin=completion.origin,
        asked_ms=completion.started_ms,
    )


def _message(role: str, content: str, other: str) -> dict[str, Any]:
    return {"role": role, "content": content, **(orjson.loads(other) if other else {})}
