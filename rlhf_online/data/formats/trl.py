"""TRL's rows (huggingface.co/docs/trl/dataset_formats): preference, with its prompt or with it at the head of both
sides, and unpaired preference. Each side is a text, or a list of messages.

Beside these fields a row may say who judged, when and why (`fields.CIRCUMSTANCES`); `data export` writes them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf_online.data import fields
from rlhf_online.data.rows import BETTER_FIRST, TIED, Message, Row
from rlhf_online.errors import RowRefused

FIELDS = frozenset(("prompt", "chosen", "rejected", "completion", "label", "tools", "chat_template_kwargs"))

Side = tuple[Message, ...] | str


def read_preference(row: fields.Values) -> Iterator[Row]:
    """Of either form, the prompt named or implicit. Raises RowRefused."""
    yield pair(row)


def read_unpaired(row: fields.Values) -> Iterator[Row]:
    """Raises RowRefused."""
    up = fields.good(row.get("label"))
    if up is None:
        raise RowRefused("no_vote", f"'label' is {row.get('label')!r}, expected true or false")
    prompt = _side(row, "prompt")
    yield Row(
        messages=fields.prompt(_as_prompt(prompt)),
        answers=(_answer(_side(row, "completion"), "completion"),),
        judgements=(fields.circumstanced(row, up=up),),
        **fields.origin(row),
    )


def pair(
    row: fields.Values,
    *,
    name: str = "",
    source: str = "",
    tied: bool = False,
    other: Mapping[str, Any] | None = None,
) -> Row:
    """The row of a pair. `name`: its own; `tied`: neither side is better; `other` is kept. Raises RowRefused."""
    chosen, rejected = _side(row, "chosen"), _side(row, "rejected")
    prompt = _as_prompt(_side(row, "prompt")) if row.get("prompt") else ()
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise RowRefused("shape", "'chosen' and 'rejected' must both be texts, or both be lists of messages")
    if isinstance(chosen, tuple) and isinstance(rejected, tuple):
        head = _common_head(chosen, rejected)
        prompt = prompt if prompt[-head:] == chosen[:head] and head else (*prompt, *chosen[:head])
        chosen, rejected = chosen[head:], rejected[head:]
    elif not prompt and isinstance(chosen, str) and isinstance(rejected, str):
        head = _common_text(chosen, rejected)
        prompt = _as_prompt(chosen[:head])
        chosen, rejected = chosen[head:], rejected[head:]
    answers = _answer(chosen, "chosen"), _answer(rejected, "rejected")
    if answers[0].strip() == answers[1].strip():
        raise RowRefused("equal", "chosen and rejected are the same")
    unsure = fields.good(row.get("unsure")) is True
    tied = tied or unsure or fields.good(row.get("tie")) is True
    verdict: dict[str, Any] = {"tiers": TIED if tied else BETTER_FIRST, "unsure": unsure}
    judgement = fields.circumstanced(row, **verdict, **({"source": source} if source else {}))
    common = fields.origin(row)
    if name:
        common["id"] = name
    if other:
        common["other"] = other
    return Row(messages=fields.prompt(prompt), answers=answers, judgements=(judgement,), **common)


def _side(row: fields.Values, name: str) -> Side:
    value = row.get(name)
    return value if isinstance(value, str) else fields.messages(value, name)


def _as_prompt(side: Side) -> tuple[Message, ...]:
    return (Message(role="user", content=side),) if isinstance(side, str) else side


def _answer(side: Side, name: str) -> str:
    """The text of a side, which is one message of the assistant's."""
    if isinstance(side, str):
        return side
    if len(side) != 1 or side[0].role != "assistant":
        raise RowRefused("diverges", f"{name}: after the common prompt there must be one message of the assistant's")
    return side[0].content


def _common_head(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> int:
    """How many messages both sides begin with; the last one of either is an answer."""
    limit = min(len(chosen), len(rejected)) - 1
    return next((at for at in range(limit) if chosen[at] != rejected[at]), limit)


def _common_text(chosen: str, rejected: str) -> int:
    """Where the sides of an implicit prompt part, at the beginning of a word, as TRL's `extract_prompt` has it."""
    limit = min(len(chosen), len(rejected))
    head = next((at for at in range(limit) if chosen[at] != rejected[at]), limit)
    while head and not chosen[head - 1].isspace():
        head -= 1
    return head - 1 if head and chosen[head - 1] == " " else head
