"""Conversations as clients send them, of every kind that differs once rendered, and chat templates that tell them
apart."""

from typing import Any

from rlhf_online.simulation.tiny_model import CHAT_TEMPLATE

TOOLS = [
    {
        "type": "function",
        "function": {"name": "weigh", "description": "zinc", "parameters": {"type": "object", "properties": {}}},
    }
]
CALL = {"id": "call-1", "type": "function", "function": {"name": "weigh", "arguments": '{"metal": "zinc"}'}}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def user(content: Any = "name one tool", **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **fields}


def _system(content: Any = "be brief") -> dict[str, Any]:
    return {"role": "system", "content": content}


def _developer(content: Any = "name metals alone") -> dict[str, Any]:
    return {"role": "developer", "content": content}


def _assistant(content: Any = "saw", **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def _tool(content: Any = "7 g") -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": "call-1"}


CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "a question": [user()],
    "one part": [user(parts("fig"))],
    "several parts": [user(parts("fig", "owl"))],
    "parts in every role": [
        _system(parts("be", "brief")), user(parts("fig", "owl")), _assistant(parts("a fruit", "a bird")), user(),
    ],
    "an empty part": [user(parts("fig", "", "owl"))],
    "no part": [_system([]), user()],
    "empty text": [user(""), _assistant(""), user()],
    "blank text": [user(" fig \n")],
    "a name": [user(name="ann")],
    "a name that is null": [user(name=None)],
    "system": [_system(), user()],
    "two systems": [_system(), _system("be kind"), user()],
    "developer": [_developer(), user()],
    "developer in parts": [_developer(parts("metals", "alone")), user()],
    "system and developer": [_system(), _developer(), user()],
    "developer later": [user(), _assistant(), _developer(), user("fig")],
    "developer, empty": [_developer(""), user()],
    "a call of a tool": [user(), _assistant(None, tool_calls=[CALL]), _tool()],
    "a call with text": [user(), _assistant("wait", tool_calls=[CALL]), _tool(parts("7", "g")), user()],
    "a call without arguments": [
        user(), _assistant("", tool_calls=[{**CALL, "function": {"name": "weigh", "arguments": ""}}]), _tool(),
    ],
    "a call whose arguments are no JSON": [
        user(), _assistant("", tool_calls=[{**CALL, "function": {"name": "weigh", "arguments": "{"}}]), _tool(""),
    ],
    "no calls": [user(), _assistant("saw", tool_calls=[]), user()],
    "calls that are null": [user(), _assistant("saw", tool_calls=None, refusal=None), user()],
    "thoughts": [user(), _assistant("saw", reasoning="name iron"), user()],
    "thoughts by their older name": [user(), _assistant("saw", reasoning_content="name iron"), user()],
    "ends with the assistant": [user(), _assistant()],
}  # fmt: skip

CHAT_ML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are kind"
    "<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}{% if message.name %}:{{ message.name }}{% endif %}"
    "{{ '\n' + message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_TOOLS = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}{% for message in messages %}[{{ message.role }}"
    "{% if message.tool_call_id %} {{ message.tool_call_id }}{% endif %}]{{ message.reasoning_content or '' }}"
    "{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<call>{{ call.function.name }} {{ call.function.arguments | tojson }}"
    "</call>{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
BY_PARTS = (
    "{% for message in messages %}[{{ message['role'] }}]{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }};{% endfor %}{% endif %}{% endfor %}[assistant]"
)
KNOWS_DEVELOPER = (
    "{% for message in messages %}{% if message.role == 'developer' %}## {{ message.content }}\n{% else %}"
    "[{{ message.role }}]{{ message.content }}\n{% endif %}{% endfor %}[assistant]"
)
TEMPLATES = {
    "tiny": CHAT_TEMPLATE,
    "chatml": CHAT_ML,
    "tools": WITH_TOOLS,
    "parts": BY_PARTS,
    "developer": KNOWS_DEVELOPER,
}
