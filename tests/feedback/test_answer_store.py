"""Answers on disk: found while they are open, gone when they are not, the same after any stop."""

import random
from pathlib import Path

import pytest

from rlhf_online import events as ev
from rlhf_online.errors import CheckpointError, StateLost
from rlhf_online.feedback import answer_store as module
from rlhf_online.feedback.answer_store import AnswerStore
from tests.support.logged import completion


def add(answers: AnswerStore, name: str, ms: int) -> ev.Completion:
    envelope = completion(name, at_ms=ms)
    assert isinstance(envelope.event, ev.Completion)
    answers.add(envelope, envelope.event, ms)
    return envelope.event


@pytest.mark.parametrize("seed", range(10))
def test_any_mix_of_seals_stops_and_expiry_holds_what_is_open(tmp_path: Path, seed: int, monkeypatch):
    monkeypatch.setattr(module, "SEAL_BYTES", random.Random(seed).choice([300, 3_000, 1 << 20]))
    rng = random.Random(seed)
    answers, expected = AnswerStore(tmp_path, capacity=60), dict[str, tuple[int, ev.Completion]]()
    for number in range(300):
        event = add(answers, f"c{number}", number)
        expected[f"c{number}"] = number, event
        if len(expected) > 60:
            del expected[next(iter(expected))]
        match rng.randrange(20):
            case 0 | 1:
                answers.seal()
            case 2:
                answers = AnswerStore.load(tmp_path, answers.seal(), answers.first, answers.total, capacity=60)
            case 3:
                before = number - rng.randrange(80)
                answers.expire(before)
                expected = {name: item for name, item in expected.items() if item[0] >= before}
        assert len(answers) == len(expected)
        for name in rng.sample([f"c{n}" for n in range(number + 5)], min(number + 5, 10)):
            assert answers.get(name) == expected.get(name, (0, None))[1]
    assert all(answers.get(name) == event for name, (_, event) in expected.items())


def test_many_seals_make_few_files_and_leave_the_old_ones_alone(tmp_path: Path):
    answers = AnswerStore(tmp_path)
    named: list[tuple[list[str], int]] = []
    for number in range(64):
        add(answers, f"c{number}", number)
        named.append((answers.seal(), answers.total))
    assert max(len(names) for names, _ in named) <= 7
    for names, came in named:
        found = AnswerStore.load(tmp_path, names, 0, came)
        assert [found.get(f"c{number}") is not None for number in range(64)] == [n < came for n in range(64)]


def test_what_a_later_life_sealed_is_not_seen_by_an_older_checkpoint(tmp_path: Path):
    answers = AnswerStore(tmp_path)
    add(answers, "kept", 1)
    names, came = answers.seal(), answers.total
    add(answers, "of the future", 2)
    answers.seal()
    again = AnswerStore.load(tmp_path, names, 0, came)
    assert again.get("kept") is not None and again.get("of the future") is None
    add(again, "another future", 2)
    assert again.get("another future") is not None


def test_two_ids_of_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "key_of", lambda completion_id: 7)
    answers = AnswerStore(tmp_path)
    events = [add(answers, name, 1) for name in "abc"]
    answers.seal()
    assert [answers.get(name) for name in "abc"] == events
    assert answers.get("d") is None


def test_memory_is_let_go_when_it_is_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SEAL_BYTES", 1_000)
    answers = AnswerStore(tmp_path)
    while not answers.full:
        add(answers, f"c{answers.total}", 1)
    answers.seal()
    assert not answers.full
    assert answers.get("c0") is not None


def test_no_room_changes_nothing_and_a_seal_can_be_done_again(tmp_path: Path):
    (tmp_path / "place").write_text("a file where the folder should be")
    answers = AnswerStore(tmp_path / "place")
    add(answers, "c", 1)
    with pytest.raises(CheckpointError, match="free some space"):
        answers.seal()
    assert answers.get("c") is not None
    (tmp_path / "place").unlink()
    assert len(answers.seal()) == 1


def test_files_that_are_missing_or_none_of_ours_are_named(tmp_path: Path):
    answers = AnswerStore(tmp_path)
    add(answers, "c", 1)
    [name] = answers.seal()
    (tmp_path / name).rename(tmp_path / "aside")
    with pytest.raises(StateLost, match=f"{name} cannot be read"):
        answers.get("c")
    for content in (b"", b"rubbish", b"\xff" * 50):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
            AnswerStore.load(tmp_path, [name], 0, 1)
