"""Open WebUI's feedback export (Admin, Evaluations, Feedbacks): a JSON array of ratings, each with its chat's snapshot.

The answer is the message `meta.message_id` of `snapshot.chat.chat.history.messages`, a tree; its prompt are the
messages above it. A rating of 1 is a thumb up, −1 one down; `details.rating` (1 to 10) is kept beside.
"""

from collections.abc import Iterator

from rlhf_online.data import fields
from rlhf_online.data.rows import Judgement, Message, Row
from rlhf_online.errors import RowRefused

FIELDS = frozenset(("id", "user_id", "version", "type", "data", "meta", "snapshot", "created_at", "updated_at", "user"))


def read(row: fields.Values) -> Iterator[Row]:
    """Raises RowRefused."""
    data, meta = (fields.mapping(row.get(name) or {}, f"{name!r}") for name in ("data", "meta"))
    up = fields.good(data.get("rating"))
    if up is None:
        raise RowRefused("no_vote", f"'data.rating' is {data.get('rating')!r}, expected 1 or −1")
    answer = fields.name_of(meta, "message_id")
    path = _path(_messages(row), answer)
    user = fields.name_of(row, "user_id")
    given = data.get("tags")
    tags = [each for each in given if isinstance(each, str)] if isinstance(given, list) else []
    details = data.get("details") if isinstance(data.get("details"), dict) else {}
    at_ms = fields.milliseconds(row.get("updated_at") or row.get("created_at"))
    judgement = Judgement(
        up=up,
        person=user,
        reason=fields.maybe_text(data, "comment"),
        reasons=tuple(filter(None, (fields.maybe_text(data, "reason"), *tags))),
        at_ms=at_ms,
        id=fields.name_of(row, "id"),
    )
    yield Row(
        messages=fields.prompt(path[:-1]),
        answers=(path[-1].content,),
        judgements=(judgement,),
        name=f"{fields.name_of(meta, 'chat_id')}/{answer}",
        conversation=fields.name_of(meta, "chat_id"),
        person=user,
        id=fields.name_of(row, "id"),
        at_ms=at_ms,
        other={"models": [fields.maybe_text(data, "model_id")], **({"details": details} if details else {})},
    )


def _messages(row: fields.Values) -> fields.Values:
    """The messages of the snapshot by their ids, none where there is no snapshot."""
    found: object = row.get("snapshot")
    for name in ("chat", "chat", "history", "messages"):
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise RowRefused("no_answer", "the row has no snapshot of its chat: export from a release that keeps one")
    return found


def _path(messages: fields.Values, last: str) -> tuple[Message, ...]:
    """The messages from the first one of the tree to that of the id."""
    path: list[Message] = []
    at, seen = last, set[str]()
    while at:
        item = messages.get(at)
        if at in seen or not isinstance(item, dict):
            raise RowRefused("no_answer", "the answer that was rated is not in the snapshot of its chat")
        seen.add(at)
        path.append(fields.message({"role": item.get("role"), "content": item.get("content")}, "a message"))
        at = fields.name_of(item, "parentId")
    if not path or path[0].role != "assistant":
        raise RowRefused("no_answer", "what was rated is no answer of the assistant's")
    return tuple(reversed(path))
