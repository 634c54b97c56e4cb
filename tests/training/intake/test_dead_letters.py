"""Records and votes that cannot be used: written once, counted by reason."""

import json

from rlhf_online.eventlog.base import DeadLetter, Record
from rlhf_online.events import Feedback
from rlhf_online.feedback.outcomes import vote_key
from rlhf_online.training.intake.dead_letters import DeadLetters
from rlhf_online.training.ledger import Ledger
from rlhf_online.wire import decode
from tests.support.logged import thumb

RECORD = Record("local", 17, b"what is left")


def test_an_event_becomes_one_once():
    ledger = Ledger()
    letters = DeadLetters(ledger)
    for _ in range(2):
        letters.add("vote-1", "damaged", "a flipped bit", RECORD)
    letters.add("vote-2", "undecodable", "no event", RECORD)
    assert letters.counts == {"damaged": 1, "undecodable": 1}
    assert ledger.counts()["dead_lettered"] == 2
    assert letters.unsaved[0] == DeadLetter(
        partition="local", offset=17, event_id="vote-1", reason="a flipped bit", payload=b"what is left"
    )
    again = DeadLetters(ledger)
    again.restore(json.loads(json.dumps(letters.to_json())))
    again.add("vote-1", "damaged", "a flipped bit", RECORD)
    assert (again.counts, again.unsaved) == ({"damaged": 1, "undecodable": 1}, [])


def test_an_orphan_is_written_whole_and_not_counted():
    ledger = Ledger()
    letters = DeadLetters(ledger)
    late = thumb("c", event_id="vote-1")
    for _ in range(2):
        letters.add_orphan(late)
    [letter] = letters.unsaved
    assert (letter.partition, letter.offset, letter.event_id, letter.orphan) == ("", -1, "vote-1", True)
    assert decode(letter.payload) == late
    assert not letters.counts and ledger.counts()["orphaned"] == 1


def test_it_is_full_once_it_holds_more_than_16_mib():
    letters, large = DeadLetters(Ledger()), Record("local", 17, bytes(1 << 20))
    for number in range(17):
        assert not letters.full
        letters.add(f"vote-{number}", "damaged", "why", large)
    assert letters.full


def test_the_person_of_a_vote_is_told_why():
    ledger = Ledger()
    letters = DeadLetters(ledger)
    letters.add("vote-1", "index", "there is no answer 7", RECORD, "ann")
    letters.add("vote-2", "damaged", "a flipped bit", RECORD)
    late = thumb("c", event_id="vote-3")
    letters.add_orphan(late)
    assert isinstance(late.event, Feedback)
    assert ledger.news == {
        vote_key("vote-1", "ann"): "dead_lettered there is no answer 7",
        vote_key("vote-3", late.event.person): "orphaned",
    }
