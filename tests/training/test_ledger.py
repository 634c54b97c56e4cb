"""No event is taken twice, neither in one life nor across sealed files and restarts."""

import os
import random
from pathlib import Path
from typing import get_args

import pytest

from rlhf_online.errors import CheckpointError
from rlhf_online.feedback.outcomes import vote_key
from rlhf_online.training import ledger as module
from rlhf_online.training.ledger import Disposition, Ledger
from rlhf_online.training.parity import protect


def test_an_event_is_taken_once_whatever_becomes_of_it():
    ledger = Ledger()
    assert ledger.take("a", "trained")
    assert not ledger.take("a", "trained")
    assert not ledger.take("a", "orphaned")
    assert ledger.take("b", "held_out")
    assert ledger.known("a") and not ledger.known("c")
    assert {name: count for name, count in ledger.counts().items() if count} == {"trained": 1, "held_out": 1}


def test_what_was_sealed_is_known_after_a_restart(tmp_path: Path):
    rng = random.Random(2)
    ledger = Ledger()
    dispositions: tuple[Disposition, ...] = get_args(Disposition)
    taken: dict[str, Disposition] = {}
    files: list[str] = []
    for _ in range(6):
        for _ in range(700):  # enough for digests that begin or end with zero bytes
            event_id = f"event-{rng.randrange(20_000)}"
            disposition = rng.choice(dispositions)
            assert ledger.take(event_id, disposition) == (event_id not in taken)
            taken.setdefault(event_id, disposition)
        files = ledger.seal(tmp_path)
        assert ledger.seal(tmp_path) == files
        if rng.random() < 0.5:
            ledger = Ledger.load(tmp_path, files)
    ledger = Ledger.load(tmp_path, files)
    assert all(ledger.known(event_id) for event_id in taken)
    assert not any(ledger.known(f"another-{number}") for number in range(2_000))
    assert not any(ledger.take(event_id, "trained") for event_id in taken)
    assert sum(ledger.counts().values()) == len(taken)
    assert ledger.counts()["trained"] == sum(disposition == "trained" for disposition in taken.values())
    assert sum((tmp_path / name).stat().st_size for name in files) == 17 * len(taken)


def test_many_seals_make_few_files_and_leave_those_that_a_checkpoint_named(tmp_path: Path):
    ledger = Ledger()
    kept: list[list[str]] = []
    for number in range(64):
        ledger.take(f"event-{number}", "trained")
        kept.append(ledger.seal(tmp_path))
    assert max(len(files) for files in kept) <= 7
    for number, files in enumerate(kept):
        counts = Ledger.load(tmp_path, files).counts()
        assert counts["trained"] == number + 1


def test_a_file_is_never_changed_even_by_a_life_that_went_another_way(tmp_path: Path):
    first = Ledger()
    first.take("a", "trained")
    first.take("a too", "trained")
    base = first.seal(tmp_path)
    first.take("b", "trained")
    lost = first.seal(tmp_path)
    content = {name: (tmp_path / name).read_bytes() for name in lost}
    again = Ledger.load(tmp_path, base)  # the second checkpoint was not used
    assert not again.known("b")
    again.take("c", "trained")
    other = again.seal(tmp_path)
    assert other[0] == lost[0] == base[0] and other[1] != lost[1]
    assert {name: (tmp_path / name).read_bytes() for name in lost} == content
    assert Ledger.load(tmp_path, other).known("c")


def test_the_same_events_give_the_same_files(tmp_path: Path):
    names = []
    for life in ("one", "two"):
        ledger = Ledger()
        for event_id in ("x", "y", "z"):
            ledger.take(event_id, "trained")
        names.append(ledger.seal(tmp_path / life))
    assert names[0] == names[1]


def test_an_empty_ledger_has_no_files(tmp_path: Path):
    assert Ledger().seal(tmp_path) == []
    assert not Ledger.load(tmp_path, []).known("a")


def test_a_damaged_file_is_mended_before_it_is_read_or_written_on(tmp_path: Path):
    ledger = Ledger()
    ledger.take("a", "trained")
    [name] = ledger.seal(tmp_path)
    protect(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for place in range(len(whole)):
        (tmp_path / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert Ledger.load(tmp_path, [name]).counts()["trained"] == 1
        assert not Ledger.load(tmp_path, [name]).take("a", "trained"), "never trained twice"
    (tmp_path / name).write_bytes(bytes(len(whole)))
    ledger.take("b", "trained")
    assert Ledger.load(tmp_path, ledger.seal(tmp_path)).counts()["trained"] == 2


def test_a_changed_or_missing_file_is_refused(tmp_path: Path):
    ledger = Ledger()
    ledger.take("a", "trained")
    [name] = ledger.seal(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[5] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=r"was changed.*older checkpoint"):
        Ledger.load(tmp_path, [name])
    os.unlink(tmp_path / name)
    with pytest.raises(CheckpointError, match="cannot read"):
        Ledger.load(tmp_path, [name])


@pytest.mark.parametrize("repeated", ["a", "b", "c", "d"])
@pytest.mark.parametrize("others", [(), ("a", "b", "c", "d")])
def test_files_that_repeat_an_event_are_refused(tmp_path: Path, repeated: str, others: tuple[str, ...]):
    """Wherever its digest stands among the others."""
    one, two = Ledger(), Ledger()
    for event_id in others:
        two.take(event_id, "trained")
    for ledger in (one, two):
        ledger.take(repeated, "trained")
    with pytest.raises(CheckpointError, match="twice"):
        Ledger.load(tmp_path, one.seal(tmp_path) + two.seal(tmp_path))


def test_files_grow_to_a_size_and_what_is_larger_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_FILE_BYTES", 4 * 17)
    ledger = Ledger()
    sizes: list[list[int]] = []
    for number in range(6):
        ledger.take(f"event-{number}", "trained")
        sizes.append([(tmp_path / name).stat().st_size // 17 for name in ledger.seal(tmp_path)])
    assert sizes == [[1], [2], [2, 1], [4], [4, 1], [4, 2]]
    for number in range(6, 8):
        ledger.take(f"event-{number}", "trained")
        sizes.append([(tmp_path / name).stat().st_size // 17 for name in ledger.seal(tmp_path)])
    assert sizes[-1] == [4, 4], "two of that size do not become one"


def test_a_seal_that_fails_can_be_done_again(tmp_path: Path):
    ledger = Ledger()
    ledger.take("a", "trained")
    (tmp_path / "place").write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="cannot write"):
        ledger.seal(tmp_path / "place")
    assert not ledger.take("a", "trained")
    assert Ledger.load(tmp_path, ledger.seal(tmp_path)).known("a")


def test_what_people_are_told_stands_under_their_votes_the_last_fact_last():
    ledger = Ledger()
    ledger.tell("a", "ann", "dead_lettered", "no answer 7")
    ledger.tell("b", "bob", "joined")
    ledger.tell("a", "ann", "superseded", "c")
    assert list(ledger.news.items()) == [(vote_key("b", "bob"), "joined"), (vote_key("a", "ann"), "superseded c")]


def test_a_vote_is_erased_and_its_person_told_unless_it_was_taken_before():
    ledger = Ledger()
    ledger.take("learned from", "trained")
    ledger.erase("learned from", "ann")
    assert ledger.news == {} and ledger.counts()["erased"] == 0
    ledger.erase("waits", "ann")
    assert ledger.news == {vote_key("waits", "ann"): "erased"} and ledger.counts()["erased"] == 1
    assert not ledger.take("waits", "trained")
