"""A row → the records that a service would have logged: an exchange, and what was thought of its answers. Pure.

They are those that `wire.encode` writes for the same events, which are not made on the way: to make the frozen
dataclasses, of some eighty fields a pair, takes as long as to write them (tests/data/test_importing.py compares).

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

from rlhf_online.data.rows import BETTER_FIRST, Judgement, Message, Row
from rlhf_online.errors import RowRefused
from rlhf_online.events import SCHEMA_VERSION
from rlhf_online.proto.rlhf.v1 import events_pb2 as pb

PREFIX = "import-"
"""What the ids of imported events begin with."""
Said = list[dict[str, str]]
"""Messages as names are made of them."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows come from: see `events.Imported`. `person_hash` replaces names, and `objective` is that of judgements
    that name none."""

    format: str
    file: str
    person_hash: Callable[[str], str]
    objective: str = ""


def to_records(row: Row, number: int, place: Place, now_ms: int) -> list[pb.Envelope]:
    """The row's records, the exchange first. Raises RowRefused for text that is no Unicode."""
    row = _best_first(row)
    try:
        person = row.person_hash or (place.person_hash(row.person) if row.person else "")
        said = _plain(row.messages)
        opening = _opening(said)
        completion_id = _id(*(("named", place.format, row.name) if row.name else _content(row, said, opening, person)))
        conversation_id = (row.conversation or opening) if row.answers else completion_id
        other = orjson.dumps(row.other).decode() if row.other else ""
        made: list[pb.Envelope] = []
        if row.answers:
            made.append(record := _envelope(completion_id, place, number, row.id, row.at_ms, other))
            _fill_exchange(record.completion, row, completion_id, conversation_id, person, now_ms)
        for judgement in row.judgements:
            id_, at_ms = judgement.id or row.id, judgement.at_ms or row.at_ms
            made.append(record := _envelope("", place, number, id_, at_ms, other))
            _fill_vote(record, judgement, place, completion_id, conversation_id, now_ms)
    except (orjson.JSONEncodeError, UnicodeEncodeError) as error:
        why = "half a character (a lone surrogate) in a text, or a number of more than 64 bits"
        raise RowRefused("encoding", why) from error
    return made


def _content(row: Row, said: Said, opening: str, person: str) -> tuple[object, ...]:
    """What an exchange without a name is known by: what two people said alike in conversations of their own are two."""
    content = (said, row.answers, row.asked)
    named = row.conversation if row.conversation != opening else ""
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


def _opening(said: Said) -> str:
    """The conversation of a row whose file names none: one for all that begin with the same messages up to the first
    of the user's, so that what goes on from one question is held out, or learned from, as a whole."""
    first = 0
    while first < len(said) - 1 and said[first]["role"] != "user":
        first += 1
    return _id("opening", said[: first + 1])


def _plain(messages: Sequence[Message]) -> Said:
    """As orjson writes the messages themselves, in a third of the time."""
    return [{"role": each.role, "content": each.content, "other": each.other} for each in messages]


def _envelope(event_id: str, place: Place, number: int, id_: str, at_ms: int, other: str) -> pb.Envelope:
    record = pb.Envelope()
    record.schema_version = SCHEMA_VERSION
    record.event_id = event_id
    imported = record.imported
    imported.format = place.format
    imported.file = place.file
    imported.row = number
    if id_:
        imported.id = id_
    if at_ms:
        imported.at_ms = at_ms
    if other:
        imported.other.text = other
    return record


def _fill_exchange(
    record: pb.Completion, row: Row, completion_id: str, conversation_id: str, person: str, now_ms: int
) -> None:
    """How an answer was sampled is not known: `full_support` stays unset."""
    record.completion_id = completion_id
    record.conversation_id = conversation_id
    if person:
        record.person = person
    add = record.messages.add
    for message in row.messages:
        added = add()
        added.role = message.role
        added.content = message.content
        if message.other:
            added.other.text = message.other
    add = record.answers.add
    for index, text in enumerate(row.answers):
        answer = add()
        answer.index = index
        answer.text = text
        answer.finish_reason = "stop"
    sampling = record.sampling
    sampling.temperature = sampling.top_p = 1.0
    record.started_ms = record.finished_ms = now_ms
    if row.asked:
        record.asked.text = row.asked


def _fill_vote(
    record: pb.Envelope, judgement: Judgement, place: Place, completion_id: str, conversation_id: str, now_ms: int
) -> None:
    """With the event's id, made of what it says."""
    vote = record.feedback
    vote.conversation_id = conversation_id
    vote.source = judgement.source
    vote.created_ms = now_ms
    person = judgement.person_hash or (place.person_hash(judgement.person) if judgement.person else "")
    if person:
        vote.person = person
    if objective := judgement.objective or place.objective:
        vote.objective = objective
    if judgement.reason:
        vote.reason = judgement.reason
    if judgement.reasons:
        vote.reasons.extend(judgement.reasons)
    strength = _fill_kind(vote, judgement, completion_id)
    said = [judgement.tiers, judgement.answer, judgement.up, judgement.correction, strength, judgement.unsure]
    record.event_id = _id(
        completion_id, said, person, objective, judgement.reason, judgement.reasons, record.imported.id
    )


def _fill_kind(vote: pb.Feedback, judgement: Judgement, completion_id: str) -> int:
    """Returns how much better an answer of two is."""

    def name(ref: pb.AnswerRef, index: int) -> None:
        ref.completion_id = completion_id
        ref.index = index

    if judgement.correction:
        name(vote.correction.answer, judgement.answer)
        vote.correction.text = judgement.correction
        return 0
    if judgement.up is not None:
        name(vote.thumb.answer, judgement.answer)
        vote.thumb.up = judgement.up
        return 0
    order = [index for tier in judgement.tiers for index in tier]
    if len(order) == 2:
        pair = vote.pairwise
        name(pair.chosen, order[0])
        name(pair.rejected, order[1])
        pair.tie = len(judgement.tiers) == 1 and not judgement.unsure
        pair.strength = judgement.strength
        pair.unsure = judgement.unsure
        return judgement.strength
    vote.ranking.SetInParent()
    for tier in judgement.tiers:
        added = vote.ranking.tiers.add()
        for index in tier:
            name(added.answers.add(), index)
    return 0


def _id(*parts: object) -> str:
    return PREFIX + hashlib.blake2b(orjson.dumps(parts), digest_size=16).hexdigest()
