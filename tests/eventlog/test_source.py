"""Where a reader of Kafka's topics goes on, and what it takes of a record's headers: on values, without a broker."""

import json
from collections.abc import Sequence

import pytest

pytest.importorskip("kafka")
from rlhf_online.eventlog.kafka.source import _ids, _origin, _resume

BEFORE = {"t.feedback": "one", "t.versions": "two"}
LOW, HIGH = {"t.feedback/0": 10, "t.feedback/1": 0, "t.versions/0": 0}, {
    "t.feedback/0": 20, "t.feedback/1": 5, "t.versions/0": 3
}  # fmt: skip


def test_where_nothing_is_missing_a_reader_goes_on_where_it_was() -> None:
    at = {"t.feedback/0": 10, "t.feedback/1": 5, "t.versions/0": 1}
    assert _resume(BEFORE, BEFORE, at, LOW, HIGH) == (at, [])
    assert _resume(BEFORE, BEFORE, {}, LOW, HIGH) == (LOW, []), "a partition that it never read it reads from its first"
    assert _resume({}, BEFORE, {}, LOW, HIGH) == (LOW, [])


def test_what_is_missing_is_told_partition_by_partition() -> None:
    found, missing = _resume(
        BEFORE, BEFORE, {"t.feedback/0": 7, "t.feedback/1": 9, "t.versions/0": 1, "t.old/0": 4}, LOW, HIGH
    )
    assert found == {"t.feedback/0": 10, "t.feedback/1": 5, "t.versions/0": 1}
    assert missing == [
        "t.old/0, read up to offset 4, is gone",
        "t.feedback/0: offsets 7 to 9 were removed: 3 are missing",
        "t.feedback/1 ends at offset 5: 4 that were read before are missing",
    ]


def test_a_topic_that_was_made_anew_is_read_from_its_beginning_and_the_others_go_on() -> None:
    now = BEFORE | {"t.feedback": "another"}
    found, [sentence] = _resume(BEFORE, now, {"t.feedback/0": 15, "t.versions/0": 2}, LOW, HIGH)
    assert found == {"t.feedback/0": 10, "t.feedback/1": 0, "t.versions/0": 2}
    assert sentence.startswith("t.feedback/0 was deleted and made anew: what followed offset 15 of the old one")
    assert sentence.endswith("the new one is read from offset 10 on")


@pytest.mark.parametrize("identity", ["", "9b2d6c1e-0000-4000-8000-000000000000", "[1]", "null"])
def test_a_log_that_was_no_kafka_has_no_topics(identity: str) -> None:
    assert _ids(identity) == {} and _ids(json.dumps(BEFORE)) == BEFORE


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ([("event_id", b"x"), ("spool", b"a log"), ("sequence", b"17")], ("a log", 17)),
        ([("sequence", b"0"), ("spool", b"a log")], ("a log", 0)),
        ([("spool", b"\xff"), ("sequence", b"1")], ("\ufffd", 1)),
        ([("spool", b"a log")], None),
        ([("spool", b"a log"), ("sequence", b"-1")], None),
        ([("spool", b""), ("sequence", b"1")], None),
        ([], None),
    ],
)
def test_a_record_that_was_shipped_says_from_where(
    headers: Sequence[tuple[str, bytes]], origin: tuple[str, int] | None
) -> None:
    assert _origin(headers) == origin
