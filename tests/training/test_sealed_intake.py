"""The trainer with people's keys: what is sealed teaches as what is not, and nothing does whose key is gone."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from rlhf_online import events as ev
from rlhf_online.errors import KeysUnavailable
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.keystore import owned
from rlhf_online.keystore.keyring import Keyring, Patience, impatient
from rlhf_online.keystore.places import FolderKeys
from rlhf_online.keystore.vault import Vault
from rlhf_online.training.intake import Intake
from rlhf_online.training.ledger import Ledger
from rlhf_online.training.retrier import Retrier
from rlhf_online.wire import encode
from tests.support.content_keys import keyring, take_away
from tests.support.intakes import new_intake
from tests.support.logged import completion, erasure, feedback, ref, thumb

T = TypeVar("T")
EVERYTHING = ""


class Circle:
    """A log that is sealed, and an intake that reads it with a memory of keys of its own, as in another process."""

    def __init__(self, folder: Path, patience: Patience = impatient) -> None:
        self.folder = folder
        self.keys = keyring(folder / "keys")
        self.log, self.source = LocalLog(folder / "log"), LocalReader(folder / "log")
        self.patience = patience
        self.begin()

    def begin(self) -> None:
        self.ledger = Ledger()
        self.intake = self._new()

    def _new(self) -> Intake:
        keys = Keyring(Vault(FolderKeys(self.folder / "keys")), fresh_s=1e9, patience=self.patience)
        folder = self.folder / "answers"
        return new_intake(self.source, self.ledger, folder, reference_answers=10, eos_ids={6, 8}, keys=keys)

    def write(self, *envelopes: ev.Envelope) -> None:
        for envelope in envelopes:
            self.log.append(encode(envelope, self.keys)).result(30)

    def restart(self) -> None:
        """From a commit of now."""
        values, answers = self.intake.to_json(), self.intake.join.answers.seal()
        self.intake = self._new()
        self.intake.restore(values, answers)

    def restart_after_an_erasure(self, person: str) -> str:
        """From a commit as a checkpoint keeps it, before which the person was erased; what the commit holds."""
        inputs = self.intake.policy_inputs
        state = owned.seal([self.intake.to_json(), inputs.buffer.to_json()], self.keys)
        text, answers = json.dumps(state), self.intake.join.answers.seal()
        self.keys.erase(person)
        self.intake = self._new()
        values, buffer = owned.open_all(json.loads(text), self.keys)
        self.intake.restore(values, answers)
        self.intake.policy_inputs.buffer.restore(buffer)
        return text

    def learned(self) -> list[str]:
        self.intake.read()
        return [vote.event_id for vote in self.intake.votes.take().learned]

    @property
    def fates(self) -> dict[str, int]:
        return {name: count for name, count in self.ledger.counts().items() if count}


@pytest.fixture
def circle(tmp_path: Path) -> Iterator[Circle]:
    circle = Circle(tmp_path)
    yield circle
    circle.source.close()
    circle.log.close()


def files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def said(name: str, person: str, *, marker: str = "a word of their own") -> ev.Envelope:
    envelope = completion(name, person=person, prompt=(ord(person[0]), 2, 3))
    assert isinstance(envelope.event, ev.Completion)
    event = replace(envelope.event, messages=(ev.Message(role="user", content=marker),))
    return replace(envelope, event=event)


def test_what_is_sealed_is_learned_from_as_what_is_not(circle: Circle) -> None:
    plain = completion("old")
    circle.log.append(encode(plain)).result(30)  # before there were keys
    circle.write(said("a", "ann"), thumb("a", event_id="on a"), thumb("old", event_id="on old"))
    circle.restart()
    assert circle.learned() == ["on a", "on old"]
    assert len(circle.intake.policy_inputs.prompts) == 2


def test_the_files_of_answers_hold_no_word_of_what_is_sealed(circle: Circle) -> None:
    circle.write(said("a", "ann"))
    circle.intake.read()
    circle.intake.join.answers.seal()
    kept = files(circle.folder / "answers")
    assert b"ann" in kept and b"a word of their own" not in kept
    assert b"a word of their own" not in files(circle.folder / "log")
    circle.restart()
    circle.write(thumb("a", event_id="on a"))
    assert circle.learned() == ["on a"], "and they are opened where a vote needs them"


def test_nothing_of_whose_key_is_gone_is_learned_and_every_vote_is_counted(circle: Circle) -> None:
    """From the beginning of the log, as one who learns everything anew."""
    circle.write(
        said("a", "ann"),
        said("b", "bob"),
        thumb("a", event_id="rater on a"),
        thumb("b", event_id="rater on b"),
        feedback(ev.Correction(answer=ref("b"), text="better"), event_id="rater corrects b"),
    )
    circle.keys.erase("ann")
    assert circle.learned() == ["rater on b", "rater corrects b"]
    assert circle.fates == {"trained": 2, "erased": 1}
    circle.keys.erase("rater")
    circle.begin()
    assert circle.learned() == []
    assert circle.fates == {"erased": 3}
    assert circle.intake.pending == 0


@pytest.mark.parametrize("sealed", [False, True], ids=["in memory", "in a file"])
def test_a_vote_that_comes_after_the_key_is_gone_is_erased_and_no_orphan(circle: Circle, sealed: bool) -> None:
    circle.write(said("a", "ann"))
    circle.intake.read()
    if sealed:
        circle.intake.join.answers.seal()
    circle.keys.erase("ann")
    circle.write(erasure(EVERYTHING, person="ann"), thumb("a", event_id="on a"))
    assert circle.learned() == []
    assert circle.fates == {"erased": 1}


def test_a_vote_that_waited_for_its_answer_while_its_person_was_erased_is_counted(circle: Circle) -> None:
    circle.write(thumb("later", event_id="too early"))
    circle.intake.read()
    circle.keys.erase("rater")
    circle.restart()
    assert circle.fates == {"erased": 1}
    assert circle.intake.pending == 0


def test_all_that_is_a_persons_goes_at_once_their_votes_on_others_included(circle: Circle) -> None:
    circle.write(
        said("a", "ann"),
        said("b", "bob"),
        thumb("a", event_id="rater on ann"),
        thumb("b", event_id="rater on bob"),
    )
    circle.intake.read()
    assert (len(circle.intake.votes), len(circle.intake.policy_inputs.prompts)) == (2, 2)
    circle.write(erasure(EVERYTHING, person="ann"))
    circle.intake.read()
    assert circle.intake.policy_inputs.prompts == [(ord("b"), 2, 3)] and len(circle.intake.policy_inputs.buffer) == 2
    assert {event_id for event_id, _ in circle.intake.votes.waiting()} == {"rater on bob"}
    circle.write(erasure(EVERYTHING, person="rater"))
    assert circle.learned() == []
    assert circle.fates == {"erased": 2}


def test_a_checkpoint_holds_no_word_and_what_is_erased_before_it_is_read_is_counted(circle: Circle) -> None:
    circle.write(said("a", "ann"), said("b", "bob"), thumb("a", event_id="on ann"), thumb("b", event_id="on bob"))
    circle.intake.read()
    committed = circle.restart_after_an_erasure("ann")
    for person in ("ann", "bob"):
        assert f"[{ord(person[0])}, 2, 3]" not in committed
    inputs = circle.intake.policy_inputs
    assert inputs.prompts == [(ord("b"), 2, 3)] and len(inputs.buffer) == len(inputs.reference_answers) == 2
    assert circle.learned() == ["on bob"]
    assert circle.fates == {"trained": 1, "erased": 1}


def test_a_person_who_comes_back_is_learned_from_again(circle: Circle) -> None:
    circle.write(said("a", "ann"), erasure(EVERYTHING, person="ann"))
    circle.keys.erase("ann")
    later = completion("later", person="ann", at_ms=9_000)
    circle.write(later, thumb("later", event_id="on later", at_ms=9_001), thumb("a", event_id="on a", at_ms=9_002))
    assert circle.learned() == ["on later"]
    assert circle.fates == {"trained": 1, "erased": 1}


def test_while_the_key_store_is_away_nothing_is_learned_and_nothing_is_lost(tmp_path: Path) -> None:
    told: list[str] = []
    store = tmp_path / "keys"

    class Waiting(Retrier):
        def sleep(self, seconds: float) -> None:
            """Each time that it waits, somebody brings the store back."""
            if seconds:
                assert circle.learned_so_far() == 0
                store.with_name("keys-away").rename(store)

    retrier = Waiting(threading.Event(), lambda doing, error: told.append(f"{doing}: {error}"))

    def patience(call: Callable[[], T], /) -> T:
        return retrier.call("reading people's keys", call)

    class Learner(Circle):
        def learned_so_far(self) -> int:
            return len(self.ledger.counts()) and sum(self.ledger.counts().values()) + len(self.intake.votes)

    circle = Learner(tmp_path, patience)
    circle.write(said("a", "ann"), thumb("a", event_id="on a"))
    take_away(store)
    assert circle.learned() == ["on a"]
    [message] = told
    assert message.startswith(f"reading people's keys: the key store {store} cannot be used now")
    circle.source.close()
    circle.log.close()


def test_without_a_key_store_what_is_sealed_stops_the_reading_before_anything_changed(circle: Circle) -> None:
    circle.write(said("a", "ann"), thumb("a", event_id="on a"))
    intake = new_intake(circle.source, circle.ledger, circle.folder / "other")
    with pytest.raises(KeysUnavailable, match=r"set keystore\.url"):
        intake.read()
    assert (intake.position, circle.fates, intake.pending) == ({}, {}, 0)
