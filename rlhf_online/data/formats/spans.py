"""What tracing tools keep of a call, `inputs` and `outputs` of whatever program called: found are the conversation and
the answer, in the forms that OpenAI's and LangChain's clients leave."""

from typing import Any

from rlhf_online.data import fields
from rlhf_online.data.rows import Message
from rlhf_online.errors import RowRefused

_ASKED = ("messages", "input", "question", "query", "prompt", "text", "content")
_SAID = ("choices", "generations", "messages", "output", "answer", "response", "text", "content", "message", "result")
_TYPES = {"HumanMessage": "user", "AIMessage": "assistant", "SystemMessage": "system", "ToolMessage": "tool"}
"""LangChain's classes; the roles of OpenAI's that they stand for."""


def conversation(given: Any) -> tuple[Message, ...]:
    """The messages that a call was given. Raises RowRefused."""
    found = _search(given, _ASKED)
    if isinstance(found, str):
        return fields.prompt((Message(role="user", content=found),))
    if isinstance(found, list):
        return fields.prompt(tuple(_message(item) for item in found))
    raise RowRefused("empty", "no messages, and no text, among what the call was given")


def answer(given: Any) -> str:
    """The text that a call returned. Raises RowRefused."""
    found = _search(given, _SAID)
    if isinstance(found, list) and found:
        found = found[0] if "message" in found[0] or "text" in found[0] else found[-1]
    if isinstance(found, dict):
        found = found.get("message", found.get("text", found))
    if isinstance(found, dict):
        found = _message(found).content
    if not isinstance(found, str) or not found.strip():
        raise RowRefused("no_answer", "no text among what the call returned")
    return found


def _search(given: Any, names: tuple[str, ...]) -> Any:
    """A text, or a list of objects: itself, under one of the names, or alone in a list; None if there is neither."""
    while not isinstance(given, str):
        if isinstance(given, list):
            if len(given) != 1 or not isinstance(given[0], list):
                return given if all(isinstance(item, dict) for item in given) else None
            given = given[0]
        elif not isinstance(given, dict):
            return None
        elif "role" in given or "kwargs" in given:
            return [given]
        else:
            given = next((given[name] for name in names if given.get(name)), None)
    return given


def _message(item: fields.Values) -> Message:
    """Of OpenAI's form, or of LangChain's, serialised or not."""
    kind, content = item.get("role", item.get("type")), item.get("content")
    values = item.get("kwargs", item.get("data"))
    if isinstance(values, dict):
        names = item.get("id")
        kind = names[-1] if isinstance(names, list) and names else values.get("type", kind)
        content = values.get("content")
    return fields.message({"role": _TYPES.get(str(kind), kind), "content": content}, "a message")
