"""What a person may be asked about next: prompts whose answers are worth comparing.

Whose prompts may be shown to whom: one's own, or those of a list that the operator has written. What one person asked
is never shown to another.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any, Protocol

import orjson
from typing_extensions import TypedDict

from rlhf_online.errors import ConfigError
from services.chat.bodies.api_error import ApiError
from services.chat.bodies.documented import documented
from services.chat.bodies.validation import validate
from services.chat.comparisons.request import CompareRequest
from services.chat.conversations.service import Conversations

Messages = Sequence[Mapping[str, Any]]
CHANCE = SystemRandom()
RECENT = 200
"""Of one's own prompts: so many of the newest."""


@documented
class Question(TypedDict):
    """What to compare answers to next."""

    messages: list[dict[str, Any]]
    """The `messages` of a comparison to ask for."""


class Questions(Protocol):
    """Where they come from: what the learner wants to know most can stand here, too."""

    async def next(self, person: str) -> Messages | None:
        """The messages of a prompt that this person may see; None if there is nothing to ask."""
        ...


class UniformQuestions:
    """Each as likely: of the operator's list, if it holds any, or of what the person asked."""

    def __init__(self, listed: Sequence[Messages], conversations: Conversations) -> None:
        self._listed = listed
        self._conversations = conversations

    async def next(self, person: str) -> Messages | None:
        own = await self._conversations.prompts(person, RECENT) if person and not self._listed else []
        prompts = self._listed or own
        return CHANCE.choice(prompts) if prompts else None


async def question(questions: Questions, person: str) -> Question:
    """Raises ApiError (404) if there is none."""
    messages = await questions.next(person)
    if messages is None:
        message = "there is nothing to compare: ask something first, under your name"
        raise ApiError(message, status=404, code="nothing_to_compare")
    return {"messages": [dict(message) for message in messages]}


def read_prompts(path: Path | None) -> list[Messages]:
    """The list in a file of JSON lines, {"messages": […]} each. Raises ConfigError, naming the line."""
    if path is None:
        return []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"comparison_prompts: {path} cannot be read: {error.strerror}") from error
    prompts: list[Messages] = []
    for number, line in enumerate(lines, 1):
        try:
            values = orjson.loads(line)
            if not isinstance(values, dict) or values.keys() != {"messages"}:
                raise ConfigError('expected {"messages": […]}')
            validate(CompareRequest, values)
        except (orjson.JSONDecodeError, ApiError, ConfigError) as error:
            raise ConfigError(f"comparison_prompts: {path}, line {number}: {error}") from error
        prompts.append(values["messages"])
    return prompts
