"""What the intake makes of a log: each vote in one place, whatever came twice, late, edited or taken back."""

import dataclasses
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rlhf_online import events as ev
from rlhf_online.canary.tally import Tally
from rlhf_online.eventlog.base import Position, Record
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.feedback.held_out import use_of
from rlhf_online.feedback.outcomes import vote_key
from rlhf_online.feedback.votes import Rating
from rlhf_online.training.intake import dead_letters
from rlhf_online.training.intake import intake as module
from rlhf_online.training.ledger import Ledger
from rlhf_online.wire import decode, encode
from tests.support.intakes import new_intake
from tests.support.logged import completion, erasure, feedback, ref, thumb


class Shipped(LocalReader):
    """The log as a forwarder would deliver it: records carry where they came from; `again` says which come twice."""

    again: frozenset[int] = frozenset()

    def read(self, position: Mapping[str, int], limit: int) -> tuple[list[Record], Position]:
        records, position = super().read(position, limit)
        shipped = [record._replace(origin=("spool", record.offset)) for record in records]
        return [record for record in shipped for _ in range(1 + (record.offset in self.again))], position


class VotesFirst(LocalReader):
    """Two partitions, of which the smaller is delivered first, as Kafka does after a trainer's outage."""

    def read(self, position: Mapping[str, int], limit: int) -> tuple[list[Record], Position]:
        everything, _ = super().read({}, 100_000)
        votes = [record for record in everything if isinstance(decode(record.payload).event, ev.Feedback)]
        answers = [record for record in everything if record not in votes]
        at = dict(position) or {"votes": 0, "answers": 0}
        for name, records in (("votes", votes), ("answers", answers)):
            if batch := records[at[name] : at[name] + limit]:
                return batch, at | {name: at[name] + len(batch)}
        return [], at


class Bench:
    """A log to write to, and an intake that reads it."""

    def __init__(self, folder: Path, source: LocalReader) -> None:
        self.folder = folder
        self.log = LocalLog(folder / "log")
        self.source = source
        self.ledger = Ledger()
        self.intake = new_intake(source, self.ledger, folder / "answers")

    def write(self, *envelopes: ev.Envelope) -> None:
        for envelope in envelopes:
            self.log.append(encode(envelope)).result(30)

    def restart(self) -> None:
        """Stop after a commit, and go on from it."""
        answers = self.intake.join.answers.seal()
        values = json.loads(json.dumps(self.intake.to_json()))
        self.ledger = Ledger.load(self.folder / "ledger", self.ledger.seal(self.folder / "ledger"))
        self.intake = new_intake(self.source, self.ledger, self.folder / "answers")
        self.intake.restore(values, answers)

    def learned(self) -> list[str]:
        """Read all there is and take it."""
        self.intake.read()
        return [vote.event_id for vote in self.intake.votes.take()[0]]

    @property
    def counts(self) -> dict[str, int]:
        return {str(name): count for name, count in self.ledger.counts().items() if count}


@pytest.fixture(params=[LocalReader, Shipped], ids=["local", "shipped"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(tmp_path, request.param(tmp_path / "log"))
    yield bench
    bench.log.close()
    bench.source.close()


def revised(name: str, replaces: str, *, person: str = "rater", kind: ev.FeedbackKind | None = None) -> ev.Envelope:
    """A thumb down by that person in place of another feedback, or `kind`."""
    envelope = feedback(kind or ev.Thumb(answer=ref("c"), up=False), event_id=name)
    assert isinstance(envelope.event, ev.Feedback)
    return dataclasses.replace(envelope, event=dataclasses.replace(envelope.event, replaces=replaces, person=person))


def withdrawal(name: str, replaces: str, *, person: str = "rater") -> ev.Envelope:
    return revised(name, replaces, person=person, kind=ev.Withdrawal(answer=ref("c")))


def test_the_same_key_a_hundred_times_counts_once_before_and_after_it_was_taken(bench: Bench):
    bench.write(completion("c"), *[thumb("c", event_id="vote")] * 50)
    assert bench.learned() == ["vote"]
    bench.restart()
    bench.write(*[thumb("c", event_id="vote")] * 50)
    assert bench.learned() == []
    assert bench.counts == {"trained": 1}
    assert bench.intake.duplicates == 99


def test_how_far_it_has_read_and_what_is_to_be_told_come_back(bench: Bench):
    bench.write(completion("c"), thumb("c", event_id="one"), thumb("c", event_id="two"), thumb("later"))
    assert (bench.intake.lag, bench.intake.uncommitted, bench.intake.pending) == (4, 0, 0)
    assert bench.intake.read() == 4 and bench.intake.read() == 0
    assert (bench.intake.lag, bench.intake.uncommitted, bench.intake.pending) == (0, 4, 2)
    told = {vote_key("one", "rater"): "superseded two"}
    assert bench.ledger.news == told
    answers, values = bench.intake.join.answers.seal(), bench.intake.to_json()
    assert bench.intake.uncommitted == 0
    bench.restart()
    assert (bench.intake.lag, bench.intake.uncommitted, bench.intake.pending) == (0, 0, 2)
    assert bench.ledger.news == told
    for unknown in ("news", "known"):
        del values[unknown]
    bench.intake.restore(values, answers)
    assert bench.ledger.news == {}, "an earlier release told nobody"


@pytest.mark.parametrize("version", ["policy-000001", ""])
def test_what_an_earlier_release_counted_of_everybodys_canary_goes_on(bench: Bench, version: str):
    answers, values = bench.intake.join.answers.seal(), bench.intake.to_json()
    del values["canaries"]
    values["canary"] = Tally(version, "policy-000000" if version else "").to_json()
    bench.intake.restore(values, answers)
    counted = {kind: tally.to_json() for kind, tally in bench.intake.canaries.items()}
    assert counted == ({"policy": values["canary"]} if version else {}), "it had a tally of none, too"


def test_the_log_says_where_to_read_on(bench: Bench):
    bench.write(completion("c"))
    assert bench.intake.resume_position(bench.source.identity(), {"local": 1}) == ({"local": 1}, [])
    found, [missing] = bench.intake.resume_position(bench.source.identity(), {"local": 5})
    assert found == {"local": 1} and "4 that were read before are missing" in missing


def test_a_vote_whose_answer_does_not_come_within_the_window_is_an_orphan(bench: Bench):
    later = [completion(f"c{number}", at_ms=10_000_000) for number in range(120)]
    bench.write(thumb("never", event_id="lost", at_ms=1_000), *later)
    bench.intake.read()
    assert bench.counts == {"orphaned": 1} and bench.intake.pending == 0
    assert [letter.event_id for letter in bench.intake.dead_letters.unsaved] == ["lost"]
    bench.intake.write_dead_letters()
    assert bench.intake.dead_letters.unsaved == []


def test_an_erasure_of_nobodys_conversation_erases_none(bench: Bench):
    bench.intake = new_intake(bench.source, bench.ledger, bench.folder / "answers", eos_ids={6, 8})
    bench.write(completion("c", person=""), thumb("c", event_id="vote"), erasure("talk c", person=""))
    assert bench.learned() == ["vote"]
    assert len(bench.intake.policy_inputs.prompts) == 1


def test_answers_that_the_models_cannot_read_train_nothing_and_are_counted(bench: Bench):
    def cut(name: str, prompt: tuple[int, ...], *answers: tuple[int, ...]) -> ev.Envelope:
        """Answers that ended at the token limit, which is an end that every model has."""
        event = completion(name, prompt=prompt, answers=answers).event
        assert isinstance(event, ev.Completion)
        ended = tuple(dataclasses.replace(answer, finish_reason="length") for answer in event.answers)
        return ev.Envelope(event_id=name, event=dataclasses.replace(event, answers=ended))

    bench.write(
        cut("foreign", (1, 2, 4), (5, 1000)),
        cut("foreign prompt", (1000, 2), (5,), (6,)),
        cut("long", (1, 2, 3), (5,) * 998, (6, 7)),
        completion("broken off", answers=((5, 6), (7, 8))),
    )
    bench.intake.read()
    found = {"vocabulary": 3, "context": 1, "unfinished": 2}
    assert bench.intake.policy_inputs.left_out == found
    bench.restart()
    assert bench.intake.policy_inputs.left_out == found
    assert bench.intake.policy_inputs.prompts == [(1, 2, 3)], "of the answer that can be read"


def test_no_answer_of_a_conversation_that_is_held_out_or_back_is_a_reference_answer(bench: Bench):
    """Implicit signals are compared with reference answers, which is learning from them."""
    names = [f"talk {number}" for number in range(40)]
    uses = {name: use_of(name, held_out=0.3, held_back=0.3) for name in names}
    assert len(set(uses.values())) == 3
    changes = {"held_out": 0.3, "held_back": 0.3, "reference_answers": 99, "prompts": 99, "eos_ids": {2}}
    intake = new_intake(bench.source, bench.ledger, bench.folder / "answers", **changes)
    bench.write(
        *(completion(name, prompt=(1, n, 3), answers=((5, 2),), conversation=name) for n, name in enumerate(names))
    )
    intake.read()
    learned_from = {n for n, name in enumerate(names) if uses[name] == "learned"}
    assert {prompt[1] for prompt, _ in intake.policy_inputs.reference_answers} == learned_from
    assert len(intake.policy_inputs.prompts) == 40, "for which there may be fresh answers"


def test_records_that_nobody_can_use_are_counted_by_reason(bench: Bench):
    bench.write(completion("c"), *[feedback(ev.Ranking(tiers=((ref("c"),),)), event_id=f"alone {n}") for n in range(2)])
    bench.write(feedback(ev.Thumb(answer=ref("c", 7), up=True), event_id="nowhere"))
    bench.write(thumb("c", event_id="good"))
    bench.log.append(b"\xff\xff no envelope").result(30)
    bench.intake.read()
    found = {"single": 2, "missing": 1, "undecodable": 1}
    assert bench.intake.dead_letters.counts == found
    assert bench.counts == {"dead_lettered": 4}
    bench.restart()
    bench.write(feedback(ev.Ranking(tiers=((ref("c"),),)), event_id="alone 0"))
    assert bench.learned() == ["good"]
    assert bench.intake.dead_letters.counts == found, "one that came twice counts once"


def test_what_a_forwarder_sent_again_counts_once(tmp_path: Path):
    source = Shipped(tmp_path / "log")
    source.again = frozenset(range(0, 200, 3))
    bench = Bench(tmp_path, source)
    votes = [thumb(f"c{number}", event_id=f"v{number}") for number in range(100)]
    bench.write(*(completion(f"c{number}") for number in range(100)), *votes)
    bench.intake.read()
    bench.restart()
    bench.intake.position = {"local": 0}  # a producer that was replaced sends all of it once more
    bench.write(b := thumb("c0", index=1, event_id="last"))
    assert bench.learned() == [vote.event_id for vote in [*votes, b]]
    assert bench.intake.duplicates >= 120
    assert bench.intake.policy_inputs.left_out == {"unfinished": 200}, "an answer counts once, whoever sent it again"
    bench.log.close()
    source.close()


def test_votes_that_wait_for_a_cycle_survive_a_stop(bench: Bench):
    bench.write(completion("c"), thumb("c", event_id="one"), thumb("later", event_id="two"))
    bench.intake.read()
    assert (bench.intake.votes.trainable, bench.intake.pending) == (1, 2)
    bench.restart()
    assert (bench.intake.votes.trainable, bench.intake.pending) == (1, 2)
    bench.write(completion("later"))
    assert bench.learned() == ["one", "two"]


@pytest.mark.parametrize("stop", [False, True], ids=["in one life", "with a stop between"])
def test_an_edit_takes_the_place_of_a_vote_that_waits(bench: Bench, stop: bool):
    bench.write(completion("c"), thumb("c", event_id="vote"), thumb("d", event_id="early"))
    bench.intake.read()
    if stop:
        bench.restart()
    bench.write(revised("edit", "vote"), withdrawal("gone", "early"), completion("d"))
    bench.intake.read()
    [edit], *_ = bench.intake.votes.take()
    assert isinstance(edit, Rating) and (edit.event_id, edit.up) == ("edit", False)
    assert bench.counts == {"trained": 1, "withdrawn": 3}
    assert bench.intake.pending == 0


@pytest.mark.parametrize("stop", [False, True], ids=["in one life", "with a stop between"])
def test_an_edit_that_comes_before_the_vote_still_takes_its_place(bench: Bench, stop: bool):
    bench.write(completion("c"), revised("edit", "vote"), withdrawal("gone", "another"))
    bench.intake.read()
    if stop:
        bench.restart()
    bench.write(thumb("c", event_id="vote"), thumb("c", event_id="another"))
    assert bench.learned() == ["edit"]
    assert bench.counts == {"trained": 1, "withdrawn": 3}


def test_of_two_edits_of_one_vote_the_later_counts_and_a_withdrawal_ends_it(bench: Bench):
    bench.write(completion("c"), thumb("c", event_id="vote"), revised("first", "vote"), revised("second", "vote"))
    bench.intake.read()
    assert bench.intake.votes.trainable == 1
    bench.write(withdrawal("gone", "second"))
    assert bench.learned() == []
    assert bench.counts == {"withdrawn": 4}


def test_nobody_edits_or_takes_back_somebody_elses_vote(bench: Bench):
    bench.write(completion("c"), withdrawal("early thief", "vote", person="thief"), thumb("c", event_id="vote"))
    bench.write(revised("edit", "vote", person="thief"), withdrawal("gone", "vote", person="another"))
    assert bench.learned() == ["vote"]
    assert bench.counts == {"trained": 1, "withdrawn": 1, "dead_lettered": 2}
    assert bench.intake.dead_letters.counts == {"stranger": 2}


@pytest.mark.parametrize("stop", [False, True], ids=["in one life", "with a stop between"])
def test_nor_after_it_was_learned_from(bench: Bench, stop: bool):
    bench.write(completion("c"), thumb("c", event_id="vote"))
    assert bench.learned() == ["vote"]
    if stop:
        bench.restart()
    bench.write(withdrawal("gone", "vote", person="thief"), revised("edit", "vote", person="another"))
    assert bench.learned() == []
    assert bench.intake.votes.revoked == []
    assert bench.intake.dead_letters.counts == {"stranger": 2}


@pytest.mark.parametrize("stop", [False, True], ids=["in one life", "with a stop between"])
def test_another_vote_under_a_key_that_was_used_is_a_dead_letter(bench: Bench, stop: bool):
    other = thumb("c", event_id="vote", up=False)
    bench.write(completion("c"), thumb("c", event_id="vote"), other)
    bench.intake.read()
    if stop:
        bench.restart()
    assert bench.learned() == ["vote"]
    bench.write(other, thumb("c", event_id="vote", at_ms=9_000), thumb("c", event_id="vote", index=1))
    assert bench.learned() == []
    assert bench.intake.dead_letters.counts == {"reused_key": 2}, "each other content once"
    assert bench.intake.duplicates == 1, "the same again, a while later"


def test_one_persons_last_word_on_an_answer_counts(bench: Bench):
    """A thousand votes under a thousand keys; each kind of vote has its own last word."""
    flood = [thumb("c", event_id=f"{number}", up=bool(number % 2)) for number in range(1000)]
    corrections = [
        feedback(ev.Correction(answer=ref("c"), text=f"text {number}"), event_id=f"text {number}")
        for number in range(10)
    ]
    pair = feedback(ev.Pairwise(chosen=ref("c", 0), rejected=ref("c", 1)), event_id="pair")
    back = feedback(ev.Pairwise(chosen=ref("c", 1), rejected=ref("c", 0)), event_id="back")
    other = thumb("c", index=1, event_id="another answer")
    bench.write(*flood[:500], completion("c"), *flood[500:], *corrections, pair, other, back)
    bench.intake.read()
    assert bench.intake.votes.trainable == 4
    assert bench.learned() == ["999", "text 9", "another answer", "back"]
    assert bench.counts == {"trained": 4, "withdrawn": 1009}


def test_people_without_a_name_are_not_one_person(bench: Bench):
    def nobody(name: str) -> ev.Envelope:
        envelope = thumb("c", event_id=name)
        assert isinstance(envelope.event, ev.Feedback)
        return dataclasses.replace(envelope, event=dataclasses.replace(envelope.event, person=""))

    bench.write(completion("c"), nobody("one"), nobody("two"))
    assert bench.learned() == ["one", "two"]


@pytest.mark.parametrize("again", ["another vote", "an edit", "taken back first"])
def test_what_was_learned_from_is_not_learned_as_new_again(bench: Bench, again: str):
    bench.write(completion("c"), thumb("c", event_id="vote"))
    bench.intake.read()
    [first], *_ = bench.intake.votes.take()
    assert not first.revised
    bench.restart()
    if again == "taken back first":
        bench.write(withdrawal("gone", "vote"))
    bench.write(revised("new", "vote" if again == "an edit" else ""))
    bench.intake.read()
    bench.restart()
    assert bench.intake.votes.trainable == 0, "it brings no cycle about"
    [second], *_ = bench.intake.votes.take()
    assert (second.event_id, second.revised) == ("new", True)
    assert bench.counts == {"trained": 2} | ({"withdrawn": 1} if again == "taken back first" else {})


def test_revised_votes_do_not_stop_the_reading(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_VOTES", 3)
    bench.write(*(completion(f"c{n}", conversation=f"{n}") for n in range(3)))
    bench.write(*(thumb(f"c{n}", event_id=f"v{n}") for n in range(3)))
    assert len(bench.learned()) == 3 and not bench.intake.full
    bench.write(*(thumb(f"c{n}", event_id=f"again {n}") for n in range(3)))
    bench.intake.read()
    assert (bench.intake.votes.trainable, bench.intake.full) == (0, True), "a cycle takes them"


def test_a_vote_that_was_learned_from_is_revoked(bench: Bench):
    bench.write(completion("c"), thumb("c", event_id="vote"))
    assert bench.learned() == ["vote"]
    bench.write(revised("edit", "vote"))
    bench.intake.read()
    bench.restart()
    assert bench.intake.votes.revoked == [("vote", "rater")]
    assert bench.learned() == ["edit"]
    assert bench.counts == {"trained": 2}


def test_votes_read_days_ahead_of_their_answers_wait_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "READ_RECORDS", 50)
    day_ms = 86_400_000
    source = VotesFirst(tmp_path / "log")
    bench = Bench(tmp_path, source)
    for number in range(400):
        at_ms = number * day_ms // 100
        bench.write(completion(f"c{number}", at_ms=at_ms), thumb(f"c{number}", event_id=f"v{number}", at_ms=at_ms + 1))
    bench.write(thumb("never", event_id="early", at_ms=0))
    assert len(bench.learned()) == 400
    assert bench.intake.pending == 1, "it came when the log's time was four days later, and waits from then on"
    bench.log.close()
    source.close()


def test_memory_does_not_grow_between_two_commits(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rlhf_online.feedback.answer_store.SEAL_BYTES", 10_000)
    monkeypatch.setattr(dead_letters, "MAX_BYTES", 1_000)
    monkeypatch.setattr(module, "READ_RECORDS", 50)
    rng = random.Random(5)
    bench.write(*(completion(f"c{number}") for number in range(300)))
    for _ in range(60):
        bench.log.append(b"\xff" + rng.randbytes(100)).result(30)
    bench.intake.read()
    assert len(list((bench.folder / "answers").iterdir())) > 1
    assert sum(len(dead_letter.payload) for dead_letter in bench.intake.dead_letters.unsaved) <= 1_000 + 50 * 101
    assert len((bench.folder / "log" / "dead-letters.jsonl").read_text().splitlines()) >= 10
    bench.write(*(thumb(f"c{number}", event_id=f"v{number}") for number in range(300)))
    assert len(bench.learned()) == 300
