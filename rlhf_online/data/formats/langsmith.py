"""LangSmith: runs and feedback, each as its API gives it (`Client.list_runs`, `Client.list_feedback`), in any order.

A run is an exchange; a feedback judges the run `run_id`. A score of 1 or 0 (true or false) is a thumb; a `correction`
that is a text, a correction. What a model judged (`feedback_source.type` is "model") has the source "ai".
"""

from collections.abc import Iterator

from rlhf_online.data import fields
from rlhf_online.data.formats import spans
from rlhf_online.data.rows import Judgement, Row
from rlhf_online.errors import RowRefused

RUN = ("id", "name", "run_type", "inputs", "outputs", "start_time", "end_time", "trace_id", "session_id", "extra")
FEEDBACK = ("run_id", "key", "score", "value", "comment", "correction", "created_at", "modified_at", "feedback_source")
FIELDS = frozenset(RUN + FEEDBACK)


def read(row: fields.Values) -> Iterator[Row]:
    """Raises RowRefused."""
    if "run_id" in row and "key" in row:
        yield _feedback(row)
        return
    name = fields.name_of(row, "id")
    if not name:
        raise RowRefused("shape", "neither a run ('id', 'inputs', 'outputs') nor a feedback ('run_id', 'key', 'score')")
    thread = fields.mapping(fields.mapping(row.get("extra") or {}).get("metadata") or {})
    given = next((str(thread[key]) for key in ("thread_id", "session_id", "conversation_id") if thread.get(key)), "")
    yield Row(
        messages=spans.conversation(row.get("inputs")),
        answers=(spans.answer(row.get("outputs")),),
        name=name,
        conversation=given,
        id=name,
        at_ms=fields.milliseconds(row.get("end_time") or row.get("start_time")),
        other={"name": row.get("name"), "run_type": row.get("run_type")},
    )


def _feedback(row: fields.Values) -> Row:
    source = fields.mapping(row.get("feedback_source") or {}, "'feedback_source'")
    key, correction = fields.maybe_text(row, "key"), row.get("correction")
    up = fields.good(row.get("score") if row.get("score") is not None else row.get("value"))
    if not isinstance(correction, str) or not correction.strip():
        correction = ""
    if up is None and not correction:
        raise RowRefused("score", f"the score {key!r} is neither 1 nor 0: what is good about it is not known")
    at_ms = fields.milliseconds(row.get("created_at"))
    judgement = Judgement(
        up=None if correction else up,
        correction=correction,
        person=fields.name_of(source, "user_id"),
        reason=fields.maybe_text(row, "comment"),
        source="ai" if source.get("type") == "model" else "import",
        at_ms=at_ms,
        id=fields.name_of(row, "id"),
    )
    name = fields.name_of(row, "run_id")
    return Row(name=name, judgements=(judgement,), id=judgement.id, at_ms=at_ms, other={"score": key})
