"""What of an erased conversation is covered by its erasure, and for how long erasures are remembered."""

import json
from dataclasses import replace

from rlhf_online.events import Completion, Erasure
from rlhf_online.feedback.erasures import Erasures, stems_from
from tests.support.comparisons import comparison
from tests.support.logged import completion


def _asked(at_ms: int, conversation: str = "talk") -> Completion:
    event = completion("c", conversation=conversation).event
    assert isinstance(event, Completion)
    return replace(event, started_ms=at_ms)


def _erasure(at_ms: int, conversation: str = "talk") -> Erasure:
    return Erasure(conversation_id=conversation, person=_asked(0).person, erased_ms=at_ms)


def test_what_was_asked_no_later_is_covered_by_the_last_erasure_in_whatever_order_they_come() -> None:
    erasures = Erasures()
    for at_ms in (500, 1000, 700):
        erasures.add(_erasure(at_ms))
    assert erasures.cover(_asked(1000)) and not erasures.cover(_asked(1001))
    assert not erasures.cover(_asked(0, "another talk"))
    again = Erasures.from_json(json.loads(json.dumps(erasures.to_json())))
    assert again.cover(_asked(1000)) and not again.cover(_asked(1001))
    assert again.new == [_erasure(500).origin] * 3
    assert again.take_new() == erasures.take_new() == [_erasure(500), _erasure(1000), _erasure(700)]
    assert again.take_new() == [] == again.new, "once"


def test_so_many_conversations_are_remembered_those_erased_last() -> None:
    erasures = Erasures(capacity=2)
    for name in ("a", "b", "a", "c"):
        erasures.add(_erasure(1000, name))
    assert [erasures.cover(_asked(1, name)) for name in ("a", "b", "c")] == [True, False, True]


def test_a_vote_stems_from_the_conversations_of_the_answers_that_it_judges_whoever_voted() -> None:
    erasure, vote = _erasure(1000), replace(comparison(2, (5, 2)), person="somebody")
    assert stems_from(replace(vote, origins=("another", erasure.origin)), erasure)
    assert not stems_from(replace(vote, origins=("another",)), erasure)


def test_a_vote_of_an_earlier_release_stems_from_its_own_persons_conversation() -> None:
    erasure = _erasure(1000)
    vote = replace(comparison(2, (5, 2)), conversation_id="talk", person=erasure.person)
    assert stems_from(vote, erasure)
    assert not stems_from(replace(vote, person="somebody"), erasure)
    assert not stems_from(replace(vote, conversation_id="another"), erasure)
    nobody = replace(erasure, person="")
    assert not stems_from(replace(vote, person=""), nobody), "people without a name are not one person"
