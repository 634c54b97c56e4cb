"""The fields of a row, checked: each helper raises RowRefused("shape"), naming field, expectation and what is there."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rlhf_online.data.rows import Judgement, Message
from rlhf_online.errors import RowRefused

Values = Mapping[str, Any]

ROLES = {"human": "user", "prompter": "user", "ai": "assistant", "bot": "assistant"}
"""Other names of OpenAI's roles."""
KNOWN_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
CIRCUMSTANCES = frozenset(
    (
        *("person", "person_hash", "reason", "reasons", "objective", "strength", "source", "created_ms", "created_at"),
        *("id", "conversation_id", "asked_by_hash", "tie", "unsure", "versions"),
    )
)
"""Fields that a row may have beside those of its format."""


def mapping(value: Any, name: str = "the row") -> Values:
    if not isinstance(value, Mapping):
        raise RowRefused("shape", f"{name}: expected an object, got {_kind(value)}")
    return value


def text(values: Values, name: str) -> str:
    found = values.get(name)
    if not isinstance(found, str):
        raise RowRefused("shape", f"{name!r}: expected a text, got {_kind(found)}")
    return found


def listed(values: Values, name: str) -> Sequence[Any]:
    found = values.get(name)
    if not isinstance(found, list):
        raise RowRefused("shape", f"{name!r}: expected a list, got {_kind(found)}")
    return found


def maybe_text(values: Values, name: str) -> str:
    """ "" where there is none."""
    found = values.get(name)
    return "" if found is None else text(values, name)


def number(value: Any) -> float | None:
    """A finite number, also one written as a text; None for anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(values: Values, name: str) -> int:
    found = values.get(name)
    if not isinstance(found, int):
        raise RowRefused("shape", f"{name!r}: expected a whole number, got {_kind(found)}")
    return int(found)


def good(value: Any) -> bool | None:
    """Whether a score says good (1, true, up, …) or bad (0, −1, false, down, …); None if it says neither."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("true", "yes", "up", "good", "thumbs_up", "positive"):
            return True
        if word in ("false", "no", "down", "bad", "thumbs_down", "negative"):
            return False
    found = number(value)
    return None if found not in (1, 0, -1) else found == 1


def milliseconds(value: Any) -> int:
    """Unix time in ms of seconds, milliseconds, or an ISO 8601 text (UTC where it names no zone); 0 if it is none."""
    found = number(value)
    if found is not None and not isinstance(value, bool):
        ms = found if found > 1e11 else 1000 * found
        return round(ms) if 0 < ms < 1e14 else 0
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return 0
    return 0 if at is None else round(1000 * (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def message(value: Any, name: str) -> Message:
    """A message of OpenAI's form; what it holds besides role and text goes into `other`."""
    values = mapping(value, name)
    said = maybe_text(values, "role")
    role = ROLES.get(said, said)
    if role not in KNOWN_ROLES:
        raise RowRefused("shape", f"{name}: 'role' is {role!r}, expected one of {', '.join(KNOWN_ROLES)}")
    content = values.get("content")
    if isinstance(content, list):
        content = "\n".join(_part(part, f"{name}.content") for part in content)
    if content is None and values.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise RowRefused("shape", f"{name}: 'content' must be a text, got {_kind(content)}")
    if len(values) == 2:
        return Message(role=role, content=content)
    other = {key: item for key, item in values.items() if key not in ("role", "content") and item is not None}
    return Message(role=role, content=content, other=as_json(other))


def messages(value: Any, name: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise RowRefused("shape", f"{name}: expected a list of messages, got {_kind(value)}")
    return tuple(message(item, f"{name}[{index}]") for index, item in enumerate(value))


def prompt(found: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages, of which one is the user's, and none is empty."""
    if not any(item.role == "user" for item in found):
        raise RowRefused("empty", "no message of the user stands before the answers")
    for index, item in enumerate(found):
        if (not item.content or item.content.isspace()) and not item.other:
            raise RowRefused("empty", f"message {index} of the prompt is empty")
    return found


def as_json(values: Values) -> str:
    """An object's text; "" for one that holds nothing."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")) if values else ""


def circumstances(values: Values) -> dict[str, Any]:
    """What a row may say of its judgement besides the verdict (CIRCUMSTANCES), as fields of a Judgement."""
    found: dict[str, Any] = {name: maybe_text(values, name) for name in ("person", "person_hash", "objective")}
    found |= {"reason": maybe_text(values, "reason"), "source": maybe_text(values, "source") or "import"}
    reasons = values.get("reasons") or []
    if isinstance(reasons, str):
        reasons = [each.strip() for each in reasons.split(";") if each.strip()]
    if not isinstance(reasons, list) or not all(isinstance(each, str) for each in reasons):
        raise RowRefused("shape", "'reasons': expected a list of texts")
    strength = number(values.get("strength") or 0)
    if strength not in (0, 1, 2, 3):
        raise RowRefused("shape", f"'strength': expected 0 to 3, got {values.get('strength')!r}")
    at_ms = milliseconds(values.get("created_ms") or values.get("created_at"))
    return found | {"reasons": tuple(reasons), "strength": int(strength), "at_ms": at_ms, "id": name_of(values, "id")}


def origin(values: Values) -> dict[str, Any]:
    """What a row may say of its exchange, as fields of a Row."""
    versions = values.get("versions")
    return {
        "id": name_of(values, "id"),
        "at_ms": milliseconds(values.get("created_ms") or values.get("created_at")),
        "conversation": name_of(values, "conversation_id"),
        "person_hash": maybe_text(values, "asked_by_hash"),
        "asked": as_json({"tools": values["tools"]} if values.get("tools") else {}),
        "other": {"versions": versions} if isinstance(versions, list) and versions else {},
    }


def name_of(values: Values, name: str) -> str:
    """An id, which may be a number; "" for none."""
    found = values.get(name)
    return "" if found is None or isinstance(found, bool | list | dict) else str(found)


def circumstanced(values: Values, **verdict: Any) -> Judgement:
    """A judgement with the circumstances that the row names; nothing is looked for in a row that has none."""
    return Judgement(**(circumstances(values) if not CIRCUMSTANCES.isdisjoint(values) else {}) | verdict)


def _part(part: Any, name: str) -> str:
    if not isinstance(part, Mapping) or part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
        raise RowRefused("shape", f"{name}: a part is no text, {{'type': 'text', 'text': …}}")
    return part["text"]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")
