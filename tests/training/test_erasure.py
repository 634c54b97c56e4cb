"""A conversation that its person erased: what was not learned from yet is counted as erased, and kept nowhere."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_online import events as ev
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.feedback.erasures import Erasures, stems_from
from rlhf_online.feedback.votes import Vote, from_json, to_json
from rlhf_online.training.intake import Intake
from rlhf_online.training.ledger import Ledger
from rlhf_online.training.votes.replay import HeldOut, Replay
from rlhf_online.wire import encode
from tests.support.intakes import new_intake
from tests.support.logged import completion, erasure, feedback, ref, thumb

MINE = "mine"


class Trainer:
    """An intake over a real log; `restart` goes on from a commit, `kill` from the one before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log, self.source = LocalLog(folder / "log"), LocalReader(folder / "log")
        self.ledger = Ledger()
        self.intake = self._new()
        self.commit()

    def _new(self) -> Intake:
        return new_intake(self.source, self.ledger, self.folder / "answers", reference_answers=10, eos_ids={6, 8})

    def write(self, *envelopes: ev.Envelope) -> None:
        for envelope in envelopes:
            self.log.append(encode(envelope)).result(30)

    def commit(self) -> None:
        answers = self.intake.join.answers.seal()
        buffer = self.intake.policy_inputs.buffer.to_json()
        self.committed = self.intake.to_json(), answers, buffer, self.ledger.seal(self.folder / "ledger")

    def kill(self) -> None:
        values, answers, buffer, ledger = self.committed
        self.ledger = Ledger.load(self.folder / "ledger", ledger)
        self.intake = self._new()
        self.intake.restore(values, answers)
        self.intake.policy_inputs.buffer.restore(buffer)

    def learned(self) -> list[str]:
        self.intake.read()
        return [vote.event_id for vote in self.intake.votes.take()[0]]

    @property
    def fates(self) -> dict[str, int]:
        return {name: count for name, count in self.ledger.counts().items() if count}

    @property
    def kept(self) -> tuple[int, int, int]:
        """Answers for the policy's update, prompts, reference answers."""
        inputs = self.intake.policy_inputs
        return len(inputs.buffer), len(inputs.prompts), len(inputs.reference_answers)


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    trainer = Trainer(tmp_path)
    yield trainer
    trainer.source.close()
    trainer.log.close()


def test_what_waits_is_dropped_and_counted(trainer: Trainer) -> None:
    trainer.write(
        completion("a", conversation=MINE, prompt=(1,)),
        completion("b", prompt=(2,)),
        thumb("a", event_id="on a"),
        thumb("b", event_id="on b"),
    )
    trainer.intake.read()
    assert trainer.kept == (4, 2, 4)
    trainer.write(erasure(MINE))
    assert trainer.learned() == ["on b"]
    assert trainer.fates == {"trained": 1, "erased": 1}
    assert trainer.kept == (2, 1, 2)
    assert trainer.intake.pending == 0
    assert trainer.intake.policy_inputs.buffer.left_out["erased"] == 2


def test_a_vote_after_the_erasure_is_erased_too(trainer: Trainer) -> None:
    trainer.write(completion("a", conversation=MINE), erasure(MINE), thumb("a", event_id="on a"))
    assert trainer.learned() == []
    assert trainer.fates == {"erased": 1}


def test_whatever_of_it_is_read_first(trainer: Trainer) -> None:
    """Kafka orders the events of one topic alone: the erasure and the vote come before the answer."""
    trainer.write(erasure(MINE), thumb("a", event_id="on a"))
    assert trainer.learned() == []
    trainer.write(completion("a", conversation=MINE))
    assert trainer.learned() == []
    assert trainer.fates == {"erased": 1}
    assert trainer.kept == (0, 0, 0)


def test_what_is_asked_afterwards_is_a_new_conversation(trainer: Trainer) -> None:
    trainer.write(erasure(MINE), completion("later", conversation=MINE, at_ms=6_000), thumb("later", event_id="v"))
    assert trainer.learned() == ["v"]
    assert trainer.kept == (2, 1, 2)


def test_an_answer_that_was_being_written_is_erased_with_the_others(trainer: Trainer) -> None:
    ended_after = completion("slow", conversation=MINE, at_ms=5_001)
    assert isinstance(ended_after.event, ev.Completion) and ended_after.event.started_ms == 5_000
    trainer.write(erasure(MINE), ended_after, thumb("slow", event_id="v"))
    assert trainer.learned() == []
    assert trainer.fates == {"erased": 1}


def test_another_persons_conversation_of_the_same_name_stays(trainer: Trainer) -> None:
    trainer.write(
        completion("a", conversation=MINE, person="ann", prompt=(1,)),
        completion("b", conversation=MINE, person="bob", prompt=(2,)),
        completion("c", conversation=MINE, person="", prompt=(3,)),
        *(thumb(name, event_id=f"on {name}") for name in "abc"),
        erasure(MINE, person="ann"),
        erasure(MINE, person=""),
    )
    assert trainer.learned() == ["on b", "on c"]


def test_one_of_the_answers_compared_is_enough(trainer: Trainer) -> None:
    pair = feedback(ev.Pairwise(chosen=ref("b"), rejected=ref("a")), event_id="pair")
    trainer.write(completion("a", conversation=MINE), completion("b"), pair, erasure(MINE))
    assert trainer.learned() == []
    assert trainer.fates == {"erased": 1}


@pytest.mark.parametrize("read", [False, True], ids=["before it was read", "after it was read"])
def test_a_kill_between_the_erasure_and_its_commit_forgets_nothing(trainer: Trainer, read: bool) -> None:
    """The erasure is in the log: whoever goes on from the commit before reads it again."""
    trainer.write(completion("a", conversation=MINE), thumb("a", event_id="on a"))
    trainer.intake.read()
    trainer.commit()
    trainer.write(erasure(MINE))
    if read:
        trainer.intake.read()
    trainer.kill()
    assert trainer.kept == (2, 1, 2), "the commit knows nothing of it"
    assert trainer.learned() == []
    assert trainer.fates == {"erased": 1}
    assert trainer.kept == (0, 0, 0)


def test_a_commit_keeps_what_is_to_be_forgotten(trainer: Trainer) -> None:
    """Also by the replay, which lets go of it as votes are learned from the next time."""
    trainer.write(completion("a", conversation=MINE), erasure(MINE))
    trainer.intake.read()
    trainer.commit()
    trainer.kill()
    assert [one.conversation_id for one in trainer.intake.votes.erasures.take_new()] == [MINE]
    assert trainer.intake.votes.erasures.take_new() == []
    trainer.write(thumb("a", event_id="late"))
    assert trainer.learned() == []
    assert trainer.fates == {"erased": 1}


def learned_from(trainer: Trainer) -> list[Vote]:
    trainer.write(completion("a", conversation=MINE), completion("b"), thumb("a"), thumb("b"))
    trainer.intake.read()
    return trainer.intake.votes.take()[0]


@pytest.mark.parametrize("kept", [Replay(10), HeldOut()], ids=["the replay", "the held-out votes"])
def test_what_was_learned_from_is_not_repeated(trainer: Trainer, kept: Replay | HeldOut) -> None:
    kept.load_json([to_json(vote) for vote in learned_from(trainer)])
    [event] = [erasure(MINE).event]
    assert isinstance(event, ev.Erasure)
    assert kept.remove(lambda vote: stems_from(vote, event)) == 1
    assert [vote.conversation_id for vote in kept.votes] == ["talk b"]


def test_a_vote_of_an_earlier_release_goes_with_the_conversation_of_its_own_person(trainer: Trainer) -> None:
    vote, _ = learned_from(trainer)
    values = to_json(vote)
    del values["origins"]
    old = from_json(values)
    erased = ev.Erasure(conversation_id=MINE, person="rater", erased_ms=1)
    assert stems_from(old, erased)
    assert not stems_from(old, replace(erased, person="asker"))
    assert not stems_from(vote, erased)


def test_the_oldest_erasures_are_forgotten_first() -> None:
    erasures = Erasures(capacity=2)
    for name in ("one", "two", "one", "three"):
        erasures.add(ev.Erasure(conversation_id=name, person="asker", erased_ms=5_000))
    asked = {name: completion("x", conversation=name).event for name in ("one", "two", "three")}
    assert [name for name, one in asked.items() if isinstance(one, ev.Completion) and erasures.cover(one)] == [
        "one",
        "three",
    ]
