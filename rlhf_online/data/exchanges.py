"""A row → the events that a service would have logged: an exchange, and what was thought of its answers. Pure.

Names are made of content, so that a row has the same ids whenever, from whatever file it is imported: a second import
adds nothing, and every reader drops what it knows. An exchange that the file names has an id made of that name, so that
judgements in other rows find it.

Invariants: no token of an imported answer is known, so that none trains the policy as if it had been sampled here;
event times are those of the import, since the log's own clock follows them, and the file's times stand in `imported`.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from rlhf_online.data.rows import BETTER_FIRST, Judgement, Row
from rlhf_online.errors import RowRefused
from rlhf_online.events import (
    Answer,
    AnswerRef,
    Completion,
    Correction,
    Envelope,
    Feedback,
    FeedbackKind,
    Imported,
    Message,
    Pairwise,
    Ranking,
    Sampling,
    Thumb,
)

PREFIX = "import-"
"""What the ids of imported events begin with."""
_UNKNOWN = Sampling(full_support=False)
"""How an imported answer was sampled."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows come from: see `events.Imported`. `person_hash` replaces names, and `objective` is that of judgements
    that name none."""

    format: str
    file: str
    person_hash: Callable[[str], str]
    objective: str = ""


def to_events(row: Row, number: int, place: Place, now_ms: int) -> list[Envelope]:
    """The row's events, the exchange first. Raises RowRefused for text that is no Unicode."""
    row = _best_first(row)
    try:
        person = row.person_hash or (place.person_hash(row.person) if row.person else "")
        completion_id = _id(*(("named", place.format, row.name) if row.name else _content(row, person)))
        conversation_id = conversation_of(row) if row.answers else completion_id
        other = orjson.dumps(row.other).decode() if row.other else ""
        imported = Imported(format=place.format, file=place.file, row=number, id=row.id, at_ms=row.at_ms, other=other)
        made = [_exchange(row, person, completion_id, conversation_id, now_ms, imported)] if row.answers else []
        for judgement in row.judgements:
            made.append(_judged(judgement, place, completion_id, conversation_id, now_ms, imported))
    except (orjson.JSONEncodeError, UnicodeEncodeError) as error:
        why = "half a character (a lone surrogate) in a text, or a number of more than 64 bits"
        raise RowRefused("encoding", why) from error
    return made


def _content(row: Row, person: str) -> tuple[object, ...]:
    """What an exchange without a name is known by: what two people said alike in conversations of their own are two."""
    content = (_plain(row.messages), row.answers, row.asked)
    named = row.conversation if row.conversation and row.conversation != _opening(row) else ""
    return (*content, named, person) if named or person else content


def _best_first(row: Row) -> Row:
    """An exchange that one judgement orders, with its answers in that order, however the file has them: so the same
    judgement has the same name wherever it comes from. Places tell nothing, since nobody knows what was shown where."""
    if row.name or len(row.judgements) != 1 or (tiers := row.judgements[0].tiers) in (BETTER_FIRST, ()):
        return row
    order = [index for tier in tiers for index in tier]
    if order == list(range(len(row.answers))):
        return row

    def ordered(values: Sequence[Any]) -> list[Any]:
        return [values[index] for index in order]

    count = len(order)
    other = {
        name: ordered(value) if isinstance(value, list) and len(value) == count else value
        for name, value in row.other.items()
    }
    number = itertools.count()
    judgement = replace(row.judgements[0], tiers=tuple(tuple(next(number) for _ in tier) for tier in tiers))
    return replace(row, answers=tuple(ordered(row.answers)), judgements=(judgement,), other=other)


def _exchange(
    row: Row, person: str, completion_id: str, conversation_id: str, now_ms: int, imported: Imported
) -> Envelope:
    exchange = Completion(
        completion_id=completion_id,
        conversation_id=conversation_id,
        person=person,
        messages=row.messages,
        prompt_token_ids=(),
        answers=tuple(
            [
                Answer(index=index, text=text, token_ids=(), logprobs=(), spans=(), finish_reason="stop")
                for index, text in enumerate(row.answers)
            ]
        ),
        sampling=_UNKNOWN,
        started_ms=now_ms,
        finished_ms=now_ms,
        asked=row.asked,
    )
    return Envelope(event_id=completion_id, event=exchange, imported=imported)


def conversation_of(row: Row) -> str:
    """The file's own name for the conversation; else one for all that begin with the same messages up to the first of
    the user's, so that what goes on from one question is held out, or learned from, as a whole."""
    return row.conversation or _opening(row)


def _opening(row: Row) -> str:
    first = 0
    while first < len(row.messages) - 1 and row.messages[first].role != "user":
        first += 1
    return _id("opening", _plain(row.messages[: first + 1]))


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    """As orjson writes the messages themselves, in a third of the time."""
    return [{"role": each.role, "content": each.content, "other": each.other} for each in messages]


def _judged(
    judgement: Judgement, place: Place, completion_id: str, conversation_id: str, now_ms: int, imported: Imported
) -> Envelope:
    person = judgement.person_hash or (place.person_hash(judgement.person) if judgement.person else "")
    objective = judgement.objective or place.objective
    feedback = Feedback(
        conversation_id=conversation_id,
        person=person,
        kind=_kind(judgement, completion_id),
        reason=judgement.reason,
        source=judgement.source,
        created_ms=now_ms,
        objective=objective,
        reasons=judgement.reasons,
    )
    strength = judgement.strength if isinstance(feedback.kind, Pairwise) else 0
    said = [judgement.tiers, judgement.answer, judgement.up, judgement.correction, strength, judgement.unsure]
    if judgement.id or judgement.at_ms:
        imported = replace(imported, id=judgement.id or imported.id, at_ms=judgement.at_ms or imported.at_ms)
    event_id = _id(completion_id, said, person, objective, judgement.reason, judgement.reasons, imported.id)
    return Envelope(event_id=event_id, event=feedback, imported=imported)


def _kind(judgement: Judgement, completion_id: str) -> FeedbackKind:
    def ref(index: int) -> AnswerRef:
        return AnswerRef(completion_id=completion_id, index=index)

    if judgement.correction:
        return Correction(answer=ref(judgement.answer), text=judgement.correction)
    if judgement.up is not None:
        return Thumb(answer=ref(judgement.answer), up=judgement.up)
    order = [index for tier in judgement.tiers for index in tier]
    if len(order) == 2:
        tied = len(judgement.tiers) == 1
        return Pairwise(
            chosen=ref(order[0]),
            rejected=ref(order[1]),
            tie=tied and not judgement.unsure,
            strength=judgement.strength,
            unsure=judgement.unsure,
        )
    return Ranking(tiers=tuple(tuple(ref(index) for index in tier) for tier in judgement.tiers))


def _id(*parts: object) -> str:
    return PREFIX + hashlib.blake2b(orjson.dumps(parts), digest_size=16).hexdigest()
