"""What the watch on voters is shown of votes."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from rlhf_online.feedback.votes import Candidate, Comparison
from rlhf_online.gate.settings import GateSettings
from rlhf_online.training import watched_votes
from rlhf_online.training.watched_votes import WatchedVotes
from rlhf_online.watch.drift import foretold
from rlhf_online.watch.voters import Judged

TEXTS: dict[tuple[int, ...], str] = {
    (1,): "Is fig a fruit? I think yes",
    (2,): "Yes, Sir",
    (3,): "no",
    (4,): "- no\n- never",
    (5,): "No, no, never",
}


def decode(ids: Sequence[int]) -> str:
    return TEXTS[tuple(ids)]


VOTE = Comparison(
    event_id="e",
    conversation_id="c",
    person="p",
    prompt_token_ids=(1,),
    candidates=tuple(Candidate(token_ids=(number,)) for number in (2, 3, 4)),
    tiers=((2,), (0, 1)),
)


TRAITS = GateSettings().traits.traits


def shown(*votes: Comparison) -> WatchedVotes:
    watched = WatchedVotes(decode, TRAITS)
    watched.show(votes, {})
    return watched


def as_sets(judged: Judged) -> tuple[set[str], set[str]]:
    return {*judged.won}, {*judged.lost}


def test_the_newest_votes_are_looked_at_wherever_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_votes, "MOST", 2)
    votes = [replace(VOTE, event_id=str(at), person=str(at), created_ms=at) for at in (7, 9, 3, 8, 1)]
    assert [judged.person for judged in shown(*votes).by_word()] == ["8", "9"]


def test_an_answers_words_are_what_it_is_known_by() -> None:
    [judged] = shown(VOTE).by_word()
    assert judged.person == "p"
    assert as_sets(judged) == ({"no", "never"}, {"yes", "sir"}), "the third answer won, and one of the others says no"


def test_an_answers_traits_are_those_that_are_declared() -> None:
    [judged] = shown(VOTE).by_trait()
    assert as_sets(judged) == ({"format"}, {"agreement"})
    assert shown().by_trait() == []


def test_an_answer_is_long_by_the_median_of_all_that_are_looked_at() -> None:
    """Three words, where two are usual; until short answers come to be the most."""
    three = replace(VOTE, candidates=tuple(Candidate(token_ids=(number,)) for number in (2, 2, 5)))
    watched = shown(three)
    assert "length" not in watched.by_trait()[0].won
    one = tuple(Candidate(token_ids=(3,)) for _ in range(3))
    watched.show([three, *(replace(VOTE, event_id=f"{n}", candidates=one, created_ms=1) for n in range(4))], {})
    assert "length" in watched.by_trait()[0].won


def test_a_vote_is_read_once_and_forgotten_with_the_votes_that_are_gone() -> None:
    read: list[tuple[int, ...]] = []

    def counted(ids: Sequence[int]) -> str:
        read.append(tuple(ids))
        return decode(ids)

    watched = WatchedVotes(counted, TRAITS)
    other = replace(VOTE, event_id="other", person="q")
    for votes, reads in (([VOTE], 4), ([VOTE, other], 8), ([other], 8), ([VOTE, other], 12)):
        watched.show(votes, {})
        assert {judged.person for judged in watched.by_word()} == {vote.person for vote in votes}
        assert len(watched.by_word()) == len(watched.by_trait()) == len(votes)
        assert len(read) == reads, "a prompt and three answers a vote"


def test_a_vote_belongs_to_segments_once_it_was_foretold() -> None:
    right, wrong = foretold("helpful/comparison", [1.0]), foretold("helpful/comparison", [-1.0])
    marked = replace(VOTE, event_id="n", assisted=True, key_id="k", objective="harmless")
    watched = WatchedVotes(decode, TRAITS)
    watched.show([VOTE, marked, replace(VOTE, event_id="before the start")], {"e": right, "n": wrong})
    first, second = watched.by_segment()
    assert (first.right, second.right) == (True, False)
    assert first.segments == {
        "language": "unknown", "conversation": "up to 64 tokens", "asked": "3 answers", "notes": "without",
        "objective": "first", "key": "none",
    }  # fmt: skip
    assert second.segments == {**first.segments, "notes": "with", "objective": "harmless", "key": "k"}
    watched.show([VOTE, marked], {})
    assert watched.by_segment() == [first, second], "an update without news of them"


def test_a_votes_language_is_that_of_its_answers_whatever_every_prompt_begins_with() -> None:
    said = {
        1: "You are the one who answers that. " * 99,
        2: "Das ist nicht mit der Zeit",
        3: "Und das ist ein Haus",
        4: "ja",
    }
    told = []
    for answers in ((2, 3), (4, 4)):
        watched = WatchedVotes(lambda ids: said[ids[0]], TRAITS)
        candidates = tuple(Candidate(token_ids=(number,)) for number in answers)
        watched.show(
            [replace(VOTE, candidates=candidates, tiers=((0,), (1,)))], {"e": foretold("helpful/comparison", [1.0])}
        )
        told += [vote.segments["language"] for vote in watched.by_segment()]
    assert told == ["de", "en"], "by the prompt where answers do not tell"
