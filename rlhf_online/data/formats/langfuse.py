"""Langfuse: traces and scores, each as its API gives it, in any order; a trace may hold its scores and observations.

A score judges the trace `traceId`, or the observation `observationId`. A BOOLEAN, or a number that is 1 or 0, is a
thumb. What a model judged (`source` is "EVAL") has the source "ai".
"""

from collections.abc import Callable, Iterable, Iterator

from rlhf_online.data import fields
from rlhf_online.data.formats import spans
from rlhf_online.data.rows import Judgement, Row
from rlhf_online.errors import RowRefused

SCORE = ("traceId", "observationId", "name", "value", "stringValue", "dataType", "source", "comment", "timestamp")
TRACE = ("id", "input", "output", "sessionId", "userId", "scores", "observations", "createdAt", "updatedAt", "metadata")
FIELDS = frozenset((*SCORE, *TRACE, "data", "meta", "type", "startTime", "endTime", "model", "tags", "authorUserId"))


def read(row: fields.Values) -> Iterator[Row | RowRefused]:
    """What cannot be used of a trace or a page comes as a RowRefused, and the rest is read. Raises RowRefused."""
    if isinstance(row.get("data"), list):  # a page of the API
        for item in fields.listed(row, "data"):
            yield from _tried(lambda item=item: read(fields.mapping(item, "an item of 'data'")))
        return
    if "value" in row and "traceId" in row:
        yield _score(row)
        return
    # The API's list of traces has ids in these two where that of one trace has objects.
    scores, observations = (
        [item for item in fields.listed(row, name) if isinstance(item, dict)] if row.get(name) else []
        for name in ("scores", "observations")
    )
    judged = {fields.name_of(score, "observationId") for score in scores}
    for span in (row, *(each for each in observations if fields.name_of(each, "id") in judged)):
        yield from _tried(lambda span=span: [_exchange(span, row)])
    for score in scores:
        yield from _tried(lambda score=score: [_score({"traceId": row.get("id"), **score})])


def _tried(read: Callable[[], Iterable[Row | RowRefused]]) -> Iterator[Row | RowRefused]:
    try:
        yield from read()
    except RowRefused as error:
        yield error


def _exchange(span: fields.Values, trace: fields.Values) -> Row:
    name = fields.name_of(span, "id")
    if not name:
        raise RowRefused("shape", "neither a trace ('id', 'input', 'output') nor a score ('traceId', 'name', 'value')")
    when = next((span[key] for key in ("endTime", "timestamp", "startTime") if span.get(key)), None)
    return Row(
        messages=spans.conversation(span.get("input")),
        answers=(spans.answer(span.get("output")),),
        name=name,
        conversation=fields.name_of(trace, "sessionId"),
        person=fields.name_of(trace, "userId"),
        id=name,
        at_ms=fields.milliseconds(when),
        other={"name": span.get("name")} | ({"models": [span["model"]]} if span.get("model") else {}),
    )


def _score(row: fields.Values) -> Row:
    name = fields.maybe_text(row, "name")
    up = fields.good(row.get("stringValue") if row.get("value") is None else row.get("value"))
    if up is None:
        raise RowRefused("score", f"the score {name!r} is neither 1 nor 0: what is good about it is not known")
    at_ms = fields.milliseconds(row.get("timestamp"))
    judgement = Judgement(
        up=up,
        person=fields.name_of(row, "authorUserId"),
        reason=fields.maybe_text(row, "comment"),
        source="ai" if row.get("source") == "EVAL" else "import",
        at_ms=at_ms,
        id=fields.name_of(row, "id"),
    )
    judged = fields.name_of(row, "observationId") or fields.name_of(row, "traceId")
    return Row(name=judged, judgements=(judgement,), id=judgement.id, at_ms=at_ms, other={"score": name})
