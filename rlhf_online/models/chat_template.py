"""A conversation in OpenAI's form → the text that a model's chat template makes of it, as vLLM renders it.

What was served is known by its logged tokens, and is never rendered anew. This is for conversations that no engine has
seen (demonstrations in a file), or whose tokens belong to another model: they become the prompt that an engine would
make of them. `tests/models/test_chat_template.py` compares it with vLLM's own code.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlhf_online.errors import InvalidInput

Turn = Mapping[str, Any]
"""A message of OpenAI's chat API."""
_PROBE = [{"role": "user", "content": [{"type": "text", "text": "fig"}]}]
_ANSWER = "mellifluous"


class ChatTemplate:
    """The chat template of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def prompt(self, messages: Sequence[Turn], tools: Sequence[Turn] = ()) -> str:
        """The conversation up to where the answer begins. Raises InvalidInput if the template refuses the messages."""
        return self._render(messages, tools, add_generation_prompt=True)

    def answer(self, messages: Sequence[Turn], answer: Turn, tools: Sequence[Turn] = ()) -> str:
        """What the template writes after the prompt for an assistant's message, with what ends it.

        Raises InvalidInput for messages that the template refuses, or whose prompt it writes otherwise once it is
        answered.
        """
        prompt = self.prompt(messages, tools)
        whole = self._render([*messages, answer], tools, add_generation_prompt=False)
        if not whole.startswith(prompt):
            raise InvalidInput("the model's chat template writes another prompt once it is answered")
        return whole.removeprefix(prompt)

    def after_answer(self) -> str | None:
        """What stands after an assistant's answer at the end of a conversation; None if the template shows no answers.

        Raises InvalidInput.
        """
        turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": _ANSWER}]
        _, answer, after = self._render(turns, (), add_generation_prompt=False).rpartition(_ANSWER)
        return after if answer else None

    def _render(self, messages: Sequence[Turn], tools: Sequence[Turn], *, add_generation_prompt: bool) -> str:
        given: list[Any] | None = [*tools] or None
        try:
            template = self._tokenizer.get_chat_template(tools=given)
            turns = engine_turns(messages, parts=self._takes_parts, developer=_knows_developer(template))
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tools=given, add_generation_prompt=add_generation_prompt, tokenize=False
                )
            )
        except Exception as error:  # a template is a program of its own: it may raise anything
            raise InvalidInput(f"the model's chat template refuses these messages: {error}") from error

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the template iterates over the parts of a content; else it takes texts."""
        try:
            said = str(self._tokenizer.apply_chat_template(_PROBE, tokenize=False))
        except Exception:
            return False
        return "fig" in said and "'text'" not in said


def engine_turns(messages: Sequence[Turn], *, parts: bool, developer: bool) -> list[dict[str, Any]]:
    """What vLLM gives to a template that takes contents in parts, or as texts; that knows the role `developer`, or
    else has it made a system message."""
    turns = [_turn(message, parts=parts) for message in messages]
    if developer or all(turn["role"] != "developer" for turn in turns):
        return turns
    return _one_system_message([turn | {"role": "system"} if turn["role"] == "developer" else turn for turn in turns])


def text_of(content: Any) -> str:
    """A content's text: that of its parts, each on a line of its own."""
    return "\n".join(piece for piece in _pieces(content) if piece)


def _turn(message: Turn, *, parts: bool) -> dict[str, Any]:
    role, pieces = message["role"], _pieces(message.get("content"))
    if not parts:
        content = text_of(message.get("content"))
    elif role == "tool":  # few templates expect parts there
        content = "\n".join(pieces)
    else:
        content = [{"type": "text", "text": piece} for piece in pieces]
    turn: dict[str, Any] = {"role": role, "content": content}
    if role == "assistant" and message.get("tool_calls"):
        turn["tool_calls"] = [_call(call) for call in message["tool_calls"]]
    thoughts = message.get("reasoning") or message.get("reasoning_content")
    if role == "assistant" and thoughts is not None:
        turn["reasoning"] = turn["reasoning_content"] = thoughts
    if role == "tool" and "tool_call_id" in message:
        turn["tool_call_id"] = message["tool_call_id"]
    if isinstance(message.get("name"), str):
        turn["name"] = message["name"]
    return turn


def _pieces(content: Any) -> list[str]:
    if content is None or isinstance(content, str):
        return [] if content is None else [content]
    return [part["text"] for part in content]


def _call(call: Turn) -> dict[str, Any]:
    """A tool call, its arguments as an object: templates write them as JSON themselves."""
    function = call["function"]
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError:
            arguments = {}
    return {**call, "function": {**function, "arguments": arguments if isinstance(arguments, dict) else {}}}


def _knows_developer(template: str) -> bool:
    return '"developer"' in template or "'developer'" in template


def _one_system_message(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All system messages as one at the beginning, unless the only one stands there."""
    at = [index for index, turn in enumerate(turns) if turn["role"] == "system"]
    if at == [0]:
        return turns
    texts = [text_of(turns[index]["content"]) for index in at]
    merged = {"role": "system", "content": "\n\n".join(piece for piece in texts if piece)}
    return [merged, *(turn for turn in turns if turn["role"] != "system")]
