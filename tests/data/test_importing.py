"""A file → the log → votes: counted, once, with its provenance, and held out by conversation."""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.data.exchanges import Place
from rlhf_online.data.formats import FORMATS
from rlhf_online.data.importing import Importer, ImportReport, imported_ids, wait_shipped
from rlhf_online.errors import InvalidInput
from rlhf_online.eventlog.base import Shipping
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Completion, Correction, Envelope, Feedback, Pairwise, Thumb
from rlhf_online.feedback.votes import Comparison, Rating
from rlhf_online.training.ledger import Ledger
from rlhf_online.wire import decode, encode
from tests.data.test_formats import GOOD, mutated
from tests.support import hh_rlhf
from tests.support.intakes import new_intake

PAIRS = 300
END = (0,)


def add(folder: Path, name: str, file: Path, *, objective: str = "") -> ImportReport:
    """Import the file into the log in `folder`, which knows what it holds."""
    with LocalReader(folder / "log") as reader:
        known = imported_ids(reader)
    with LocalLog(folder / "log") as log:
        place = Place(name, file.name, lambda person: f"hash of {person}", objective)
        return Importer(log, known).add(file, FORMATS[name], place)


def add_rows(folder: Path, name: str, *rows: Any, **options: str) -> ImportReport:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return add(folder, name, file, **options)


def payloads(folder: Path) -> list[bytes]:
    with LocalReader(folder / "log") as reader:
        return [record.payload for record in reader.read({}, 100_000)[0]]


def logged(folder: Path) -> list[Envelope]:
    return [decode(payload) for payload in payloads(folder)]


def prompt_ids(messages: Any, tools: Any) -> tuple[int, ...]:
    return tuple("".join(f"{m['role']}: {m['content']}\n" for m in messages).encode())


def answer_ids(text: str) -> tuple[int, ...]:
    return (*text.encode(), *END)


def test_every_pair_of_a_file_with_every_oddity_is_counted_and_imported(tmp_path: Path):
    file = hh_rlhf.write(tmp_path / "test.jsonl", hh_rlhf.rows(PAIRS))
    report = add(tmp_path, "hh-rlhf", file)
    assert (report.rows, report.imported, report.votes, report.exchanges) == (PAIRS,) * 4
    assert report.notes == hh_rlhf.expected_notes(PAIRS) and not report.refused and not report.passed_over


def test_a_second_import_adds_nothing_also_from_a_file_of_another_name(tmp_path: Path):
    file = hh_rlhf.write(tmp_path / "test.jsonl", hh_rlhf.rows(PAIRS))
    add(tmp_path, "hh-rlhf", file)
    before = logged(tmp_path)
    report = add(tmp_path, "hh-rlhf", file.rename(tmp_path / "copy.jsonl"))
    assert (report.rows, report.already, report.imported) == (PAIRS, PAIRS, 0) and logged(tmp_path) == before


def test_an_import_that_was_cut_short_is_completed_by_the_next(tmp_path: Path):
    rows = hh_rlhf.rows(50)
    add(tmp_path, "hh-rlhf", hh_rlhf.write(tmp_path / "test.jsonl", rows[:20]))
    report = add(tmp_path, "hh-rlhf", hh_rlhf.write(tmp_path / "test.jsonl", rows))
    assert (report.already, report.imported) == (20, 30) and len(logged(tmp_path)) == 100


def test_what_is_refused_is_counted_with_the_first_rows_of_each_reason(tmp_path: Path):
    good = {"prompt": "a", "chosen": "b", "rejected": "c", "extra": 1}
    same = {"prompt": "a", "chosen": "b", "rejected": "b"}
    report = add_rows(tmp_path, "trl-preference", good, *[same] * 5, [], {**good, "chosen": "\ud800"}, good)
    assert report.refused == Counter(equal=5, shape=1, json=1) and report.imported == report.already == 1
    assert report.rows == report.imported + report.already + report.refused.total()
    assert [text.partition(":")[0] for text in report.examples["equal"]] == ["row 2", "row 3", "row 4"]
    assert report.passed_over == Counter(extra=2)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "csv"])
def test_a_record_is_the_one_that_its_event_is_encoded_as(tmp_path: Path, name: str):
    """Of every format: the rows fill records, and no event is made on the way (`exchanges.to_records`)."""
    rows = [GOOD[name], *(hh_rlhf.rows(PAIRS) if name == "hh-rlhf" else ())]
    add_rows(tmp_path, name, *rows, objective="helpful")
    held = payloads(tmp_path)
    assert held and held == [encode(decode(payload)) for payload in held]


def test_half_a_character_in_an_array_is_refused_like_any_other_text_that_is_none(tmp_path: Path):
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([{"prompt": "a", "chosen": "b", "rejected": text} for text in ("\ud800", "c")]))
    assert add(tmp_path, "trl-preference", file).refused == Counter(encoding=1)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "csv"])
def test_whatever_the_rows_of_an_array_hold_the_import_goes_on(tmp_path: Path, name: str):
    rng, file = random.Random(1), tmp_path / "rows.json"
    odd = ["\ud800", 10**400, 10**30, [True], [["0"], [1]], 0, 1]
    rows = [*(mutated(mutated(GOOD[name], rng, odd), rng, odd) for _ in range(200)), GOOD[name]]
    file.write_text(json.dumps(rows))
    report = add(tmp_path, name, file)
    assert report.rows == len(rows) and report.imported and report.refused
    file.write_text(f'[{{"a": {"1" * 5000}}}]')
    assert add(tmp_path, name, file).refused == Counter(json=1)


def test_half_a_character_in_an_exchange_that_has_a_name_is_refused_alone(tmp_path: Path):
    run = {
        "id": "r",
        "inputs": {"question": "Fig?"},
        "outputs": {"answer": "Yes."},
        "extra": {"metadata": {"thread_id": 1}},
    }
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([run | {"outputs": {"answer": "\ud800"}}, run]))
    report = add(tmp_path, "langsmith", file)
    assert (report.imported, report.refused) == (1, Counter(encoding=1))


def test_an_import_into_kafka_waits_until_its_records_are_there_or_nothing_moves():
    left = iter([3, 2, 2, 1, 0])
    assert wait_shipped(Shipped(lambda: next(left)), within_s=60.0, pause_s=0.0) == 0
    assert wait_shipped(Shipped(lambda: 2), within_s=0.02, pause_s=0.0) == 2


class Shipped(LocalLog):
    """A log of which only how far it was shipped is asked."""

    def __init__(self, backlog: Callable[[], int]) -> None:
        self.backlog = backlog

    def shipping(self) -> Shipping:
        return Shipping(backlog=self.backlog())


def test_where_a_record_comes_from_is_kept_with_it(tmp_path: Path):
    row = {"prompt": "a", "completion": "b", "label": True, "id": 7, "person": "ann", "created_at": "2024-05-01"}
    add_rows(tmp_path, "trl-unpaired", row | {"reason": "kind", "reasons": ["tone"]}, objective="harmless")
    exchange, vote = logged(tmp_path)
    assert exchange.imported is not None and vote.imported is not None
    assert (vote.imported.format, vote.imported.file, vote.imported.row) == ("trl-unpaired", "rows.jsonl", 1)
    assert vote.imported.id == "7" and vote.imported.at_ms == 1714521600000
    assert isinstance(vote.event, Feedback) and isinstance(exchange.event, Completion)
    assert vote.event.person == "hash of ann" and vote.event.objective == "harmless" and vote.event.source == "import"
    assert (vote.event.reason, vote.event.reasons) == ("kind", ("tone",))
    assert vote.event.created_ms > vote.imported.at_ms, "the log's clock is that of the import"


def test_votes_in_other_rows_find_their_exchange_in_whatever_order_they_come(tmp_path: Path):
    run = {"id": "r1", "inputs": {"question": "Is fig a fruit?"}, "outputs": {"answer": "No."}}
    feedback = {"id": "f1", "run_id": "r1", "key": "thumb", "score": 0}
    add_rows(tmp_path, "langsmith", feedback, run, feedback | {"id": "f2", "correction": "Yes."})
    thumb, exchange, correction = (envelope.event for envelope in logged(tmp_path))
    assert isinstance(thumb, Feedback) and isinstance(exchange, Completion) and isinstance(correction, Feedback)
    assert isinstance(thumb.kind, Thumb) and thumb.kind.answer.completion_id == exchange.completion_id
    assert isinstance(correction.kind, Correction) and correction.kind.text == "Yes."


def test_conversations_that_begin_with_one_question_are_one_and_those_with_names_their_own(tmp_path: Path):
    longer = hh_rlhf.HUMAN + "Fig?" + hh_rlhf.ASSISTANT + "Yes." + hh_rlhf.HUMAN + "Zinc?" + hh_rlhf.ASSISTANT
    begin = hh_rlhf.HUMAN + "Fig?" + hh_rlhf.ASSISTANT
    rows = [{"chosen": head + "a", "rejected": head + "b"} for head in (begin, longer)]
    add_rows(tmp_path, "hh-rlhf", *rows)
    assert len({envelope.key for envelope in logged(tmp_path)}) == 1
    pair = {"prompt": "Fig?", "chosen": "a", "rejected": "c"}
    add_rows(tmp_path, "trl-preference", pair | {"conversation_id": 1}, pair | {"conversation_id": 2, "rejected": "d"})
    assert len({envelope.key for envelope in logged(tmp_path)}) == 3


def test_the_trainer_learns_from_imported_votes_as_from_any_others(tmp_path: Path):
    add(tmp_path, "hh-rlhf", hh_rlhf.write(tmp_path / "test.jsonl", hh_rlhf.rows(60)))
    add_rows(tmp_path, "trl-unpaired", {"prompt": "a", "completion": "b", "label": True})
    with LocalReader(tmp_path / "log") as reader:
        tokenizer = {"prompt_ids": prompt_ids, "answer_ids": answer_ids}
        intake = new_intake(reader, Ledger(), tmp_path / "answers", held_out=0.3, **tokenizer)
        intake.read()
        taken = intake.votes.take()
    votes = [*taken.learned, *taken.held_out]
    assert len(votes) == 61 and not intake.pending and 5 < len(taken.held_out) < 35
    assert not {vote.conversation_id for vote in taken.learned} & {vote.conversation_id for vote in taken.held_out}
    pairs = [vote for vote in votes if isinstance(vote, Comparison)]
    empty = [pair for pair in pairs if pair.candidates[0].token_ids == END]
    assert len(pairs) == 60 and all(pair.tiers == ((0,), (1,)) for pair in pairs) and len(empty) == 1
    [thumb] = [vote for vote in votes if isinstance(vote, Rating)]
    assert bytes(thumb.prompt_token_ids) == b"user: a\n" and not intake.policy_inputs.prompts


def test_a_tie_is_a_tie_and_not_an_order(tmp_path: Path):
    add_rows(tmp_path, "trl-preference", {"prompt": "a", "chosen": "b", "rejected": "c", "tie": True})
    vote = logged(tmp_path)[1].event
    assert isinstance(vote, Feedback) and isinstance(vote.kind, Pairwise) and vote.kind.tie


def test_a_file_without_a_row_is_a_mistake(tmp_path: Path):
    with pytest.raises(InvalidInput, match="holds no row"):
        add_rows(tmp_path, "hh-rlhf")
