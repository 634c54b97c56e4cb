"""The log's votes → a file: what counts, in others' shapes, and back again without a difference."""

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf_online import events as ev
from rlhf_online.data.exporting import EXPORTED, export
from rlhf_online.data.files import read_rows
from rlhf_online.data.formats import FORMATS
from rlhf_online.data.votes import LoggedVotes
from rlhf_online.errors import InvalidInput
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.keystore.keyring import Keyring
from rlhf_online.wire import encode
from tests.data.test_formats import GOOD
from tests.data.test_importing import add, add_rows, logged
from tests.support.content_keys import keyring
from tests.support.logged import completion, feedback, ref, thumb


def exported(
    folder: Path, name: str, out: Path | None = None, *, keys: Keyring | None = None
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The rows that are written of the folder's log, and the votes that are left out."""
    out = out or folder / f"{name}.jsonl"
    with LocalReader(folder / "log") as reader:
        votes = LoggedVotes(reader, keys)
        count, left_out = export(votes, name, out)
    rows = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert len(rows) == count
    return rows, +(left_out + votes.left_out)


def log_of(folder: Path, *envelopes: ev.Envelope) -> None:
    with LocalLog(folder / "log") as log:
        log.append_all([encode(envelope) for envelope in envelopes]).result(30)


def exchange(name: str, **options: Any) -> ev.Envelope:
    return completion(name, answers=[(5, 6), (7, 8), (9,)], **options)


A, B, C = (ref("c", index) for index in range(3))


def test_a_vote_given_here_goes_out_with_versions_person_reasons_and_time(tmp_path: Path):
    vote = ev.Feedback(
        conversation_id="talk", person="hash", kind=ev.Pairwise(chosen=B, rejected=A, strength=2), reason="because",
        reasons=("tone",), source="page", created_ms=1_700_000_000_000, objective="harmless",
    )  # fmt: skip
    log_of(tmp_path, exchange("c", conversation="talk"), ev.Envelope(event_id="v", event=vote))
    [row], left_out = exported(tmp_path, "trl-preference")
    said = {side: row.pop(side) for side in ("chosen", "rejected")}
    assert all([message["role"] for message in side] == ["assistant"] for side in said.values()) and not left_out
    assert row.pop("prompt")[-1]["role"] == "user" and row.pop("asked_by_hash") == "asker"
    assert row == {
        "id": "v", "conversation_id": "talk", "person_hash": "hash", "created_ms": 1_700_000_000_000, "strength": 2,
        "objective": "harmless", "reason": "because", "reasons": ["tone"], "source": "page",
        "versions": ["policy-000001", "policy-000001"],
    }  # fmt: skip
    [plain], _ = exported(tmp_path, "openai-preference")
    assert plain == {
        "input": {"messages": plain["input"]["messages"]}, "preferred_output": said["chosen"],
        "non_preferred_output": said["rejected"],
    }  # fmt: skip


def test_each_format_says_what_it_can_and_counts_the_rest(tmp_path: Path):
    kinds = [
        ev.Ranking(tiers=((A,), (B, C))), ev.Pairwise(chosen=A, rejected=B, tie=True), ev.Thumb(answer=A, up=False),
        ev.Correction(answer=A, text="better"), ev.Implicit(answer=A, signal="stop"),
    ]  # fmt: skip
    log_of(tmp_path, exchange("c"), *(feedback(kind, event_id=f"v{n}") for n, kind in enumerate(kinds)))
    rows, left_out = exported(tmp_path, "trl-preference")
    assert len(rows) == 3 and rows[-1]["chosen"][0]["content"] == "better", "two pairs of the ranking, one correction"
    assert left_out == Counter(tie=1, thumb=1, implicit=1)
    rows, left_out = exported(tmp_path, "trl-unpaired")
    assert [row["label"] for row in rows] == [False]
    assert left_out == Counter(ranking=1, pairwise=1, correction=1, implicit=1)
    rows, left_out = exported(tmp_path, "votes")
    assert [row.get("tiers") for row in rows] == [[[0], [1, 2]], [[0, 1]], None, None]
    assert left_out == Counter(implicit=1)


def test_what_counts_no_more_is_left_out(tmp_path: Path):
    def voted(event_id: str, *, good: bool = True, **more: Any) -> ev.Envelope:
        person = more.get("person", "rater")
        kind = ev.Thumb(answer=more.get("of", A), up=good)
        return ev.Envelope(event_id=event_id, event=ev.Feedback(conversation_id="", person=person, kind=kind))

    taking_back = ev.Feedback(conversation_id="", person="rater", kind=ev.Withdrawal(answer=A), replaces="taken-back")
    gone = ev.Erasure(conversation_id="gone", person="asker", erased_ms=1 << 50)
    log_of(
        tmp_path,
        exchange("c"),
        exchange("d", conversation="gone"),
        voted("taken-back"),
        ev.Envelope(event_id="w", event=taking_back),
        voted("earlier", of=B),
        voted("later", of=B, good=False),
        voted("erased", of=ref("d")),
        voted("orphan", of=ref("nowhere")),
        voted("stranger", of=C, person="somebody"),
        voted("later", of=B, good=False),
        ev.Envelope(event_id="e", event=gone),
    )
    rows, left_out = exported(tmp_path, "trl-unpaired")
    assert [(row["id"], row["label"]) for row in rows] == [("later", False), ("stranger", True)]
    assert left_out == Counter(withdrawn=2, superseded=1, erased=1, no_answer=1)


def test_who_erased_everything_has_no_votes_on_other_peoples_answers_either(tmp_path: Path):
    gone = ev.Erasure(conversation_id="", person="rater", erased_ms=2_500)
    later = thumb("c", index=1, event_id="later", at_ms=3_000)
    log_of(tmp_path, exchange("c"), thumb("c", event_id="v"), ev.Envelope(event_id="e", event=gone), later)
    rows, left_out = exported(tmp_path, "votes")
    assert [row["id"] for row in rows] == ["later"] and left_out == Counter(erased=1)


def test_an_answer_that_called_tools_is_no_empty_text(tmp_path: Path):
    called = exchange("c")
    assert isinstance(called.event, ev.Completion)
    call = ev.ToolCall(id="1", name="weather", arguments="{}")
    answers = tuple(replace(answer, text="", tool_calls=(call,)) for answer in called.event.answers)
    log_of(tmp_path, replace(called, event=replace(called.event, answers=answers)), thumb("c"))
    for name in ("trl-unpaired", "votes"):
        assert exported(tmp_path, name) == ([], Counter(tool_calls=1))


def test_votes_that_were_given_here_are_not_imported_where_they_come_from(tmp_path: Path):
    log_of(tmp_path, exchange("c"), thumb("c"), feedback(ev.Ranking(tiers=((A,), (B, C)))))
    for name, count in (("votes", 2), ("trl-preference", 2)):
        exported(tmp_path, name)
        report = add(tmp_path, name, tmp_path / f"{name}.jsonl")
        assert (report.already, report.imported) == (count, 0)


def test_what_two_people_said_alike_stays_theirs(tmp_path: Path):
    row = {"prompt": [{"role": "user", "content": "hi"}], "answers": ["Hello"], "up": True}
    whose = [{"id": f"v{n}", "conversation_id": f"c{n}", "asked_by_hash": f"p{n}"} for n in (1, 2)]
    add_rows(tmp_path, "votes", *(row | each for each in whose))
    rows, _ = exported(tmp_path, "votes")
    assert [{name: found[name] for name in whose[0]} for found in rows] == whose


def test_what_is_sealed_goes_out_with_its_key_and_not_without_it(tmp_path: Path):
    keys = keyring(tmp_path / "keys")
    with LocalLog(tmp_path / "log") as log:
        events = [exchange("c"), thumb("c", event_id="v")]
        log.append_all([encode(envelope, keys) for envelope in events]).result(30)
    assert [row["up"] for row in exported(tmp_path, "votes", keys=keys)[0]] == [True]
    keys.erase("rater")
    rows, left_out = exported(tmp_path, "votes", tmp_path / "after.jsonl", keys=keyring(tmp_path / "keys"))
    assert not rows and left_out == Counter(erased=1)


def test_a_vote_on_what_a_deleted_key_sealed_is_counted_as_erased(tmp_path: Path):
    keys = keyring(tmp_path / "keys")
    with LocalLog(tmp_path / "log") as log:
        log.append_all([encode(envelope, keys) for envelope in (exchange("c"), thumb("c"))]).result(30)
    keys.erase("asker")
    assert exported(tmp_path, "votes", keys=keys) == ([], Counter(erased=1))


PAIRS = [name for name in FORMATS if name not in ("trl-unpaired", "open-webui", "langsmith", "langfuse")]


ROWS = {
    "langsmith": [
        {"id": "r1", "inputs": {"question": "Is fig a fruit?"}, "outputs": {"answer": "No."}},
        {"id": "f1", "run_id": "r1", "key": "thumb", "score": 0},
        {"id": "f2", "run_id": "r1", "key": "correction", "score": 0, "correction": "Yes."},
    ]
}
"""Where one row alone is no vote."""


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_imported_comes_back_without_a_difference(tmp_path: Path, name: str):
    """An export that is imported where it comes from adds nothing; in an empty log it is the same rows again."""
    add_rows(tmp_path, "trl-preference" if name == "csv" else name, *ROWS.get(name, [GOOD[name]]))
    rows, left_out = exported(tmp_path, "votes")
    assert rows and not left_out
    before = len(logged(tmp_path))
    for exported_as in ("votes", "trl-preference", "trl-unpaired"):
        back, _ = exported(tmp_path, exported_as, tmp_path / f"again-{exported_as}.jsonl")
        again = add(tmp_path, exported_as, tmp_path / f"again-{exported_as}.jsonl") if back else None
        assert again is None or (again.already, again.refused) == (len(back), Counter())
    assert len(logged(tmp_path)) == before
    (tmp_path / "other").mkdir()
    assert add(tmp_path / "other", "votes", tmp_path / "votes.jsonl").imported == len(rows)
    assert exported(tmp_path / "other", "votes")[0] == rows


@pytest.mark.parametrize("name", ["votes", "trl-preference", "trl-unpaired"])
def test_as_parquet_the_rows_are_the_same_and_add_nothing_where_they_come_from(tmp_path: Path, name: str):
    source = "trl-unpaired" if name == "trl-unpaired" else "oasst"
    add_rows(tmp_path, source, GOOD[source])
    log_of(tmp_path, exchange("c"), feedback(ev.Ranking(tiers=((A,), (B, C)))), thumb("c", event_id="t"))
    rows, _ = exported(tmp_path, name)
    with LocalReader(tmp_path / "log") as reader:
        assert export(LoggedVotes(reader), name, tmp_path / "out.parquet")[0] == len(rows)
    read: Any = [values for _, values in read_rows(tmp_path / "out.parquet", is_csv=False)]
    assert [{key: value for key, value in row.items() if value not in ([], 0)} for row in read] == rows
    report = add(tmp_path, name, tmp_path / "out.parquet")
    assert (report.already, report.imported) == (len(rows), 0) and not report.refused


@pytest.mark.parametrize("name", ["trl-preference", "openai-preference"])
def test_pairs_come_back_from_the_shapes_of_others(tmp_path: Path, name: str):
    for format in PAIRS:
        if format not in ("csv", "votes"):
            add_rows(tmp_path, format, GOOD[format])
    before = len(logged(tmp_path))
    rows, _ = exported(tmp_path, name)
    report = add(tmp_path, name, tmp_path / f"{name}.jsonl")
    assert report.rows == len(rows) and not report.refused and not report.passed_over
    if name == "trl-preference":
        assert report.already == len(rows) and len(logged(tmp_path)) == before


def test_a_file_may_be_compressed_is_never_overwritten_and_has_a_known_ending(tmp_path: Path):
    log_of(tmp_path, exchange("c"), feedback(ev.Thumb(answer=A, up=True)))
    out = tmp_path / "new" / "votes.jsonl.gz"
    with LocalReader(tmp_path / "log") as reader:
        export(LoggedVotes(reader), "votes", out)
        assert json.loads(gzip.decompress(out.read_bytes()))["up"] is True
        for path, told in ((out, "exists: name a new file"), (tmp_path / "votes.txt", "expected a name that ends")):
            with pytest.raises(InvalidInput, match=told):
                export(LoggedVotes(reader), "votes", path)
        with pytest.raises(InvalidInput, match=f"no file is written as 'shp': {', '.join(EXPORTED)}"):
            export(LoggedVotes(reader), "shp", tmp_path / "x.jsonl")
    assert [path.name for path in out.parent.iterdir()] == [out.name] and not (tmp_path / "votes.txt").exists()
