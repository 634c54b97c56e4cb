"""What the watch on voters is shown of votes."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from rlhf_online.feedback.votes import Candidate, Comparison
from rlhf_online.gate.settings import GateSettings
from rlhf_online.training import watching
from rlhf_online.training.watching import by_trait, by_word

TEXTS: dict[tuple[int, ...], str] = {
    (1,): "Is fig a fruit? I think yes",
    (2,): "Yes, Sir",
    (3,): "no",
    (4,): "- no\n- never",
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


def test_the_newest_votes_are_looked_at_wherever_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST", 2)
    votes = [replace(VOTE, event_id=str(at), created_ms=at) for at in (7, 9, 3, 8, 1)]
    assert [vote.event_id for vote in watching.newest(votes)] == ["8", "9"]


def test_an_answers_words_are_what_it_is_known_by() -> None:
    [judged] = by_word([VOTE], decode)
    assert judged.traits == ({"yes", "sir"}, {"no"}, {"no", "never"})
    assert (judged.person, judged.ranks) == ("p", (1, 1, 0))


def test_an_answers_traits_are_those_that_are_declared() -> None:
    [judged] = by_trait([VOTE], decode, GateSettings().traits.traits)
    assert judged.traits == ({"agreement"}, set(), {"format"})
    assert by_trait([], decode, GateSettings().traits.traits) == []
