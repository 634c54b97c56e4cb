"""What a vote says, whichever kind it is."""

from dataclasses import replace

from rlhf_online.feedback.votes import (
    Candidate,
    Comparison,
    Rating,
    is_signal,
    is_thumb,
    ordered_pairs,
    orders_answers,
    pairs,
    subject,
)

RANKING = Comparison(
    event_id="r",
    conversation_id="c",
    person="p",
    prompt_token_ids=(1, 3),
    candidates=tuple(Candidate(token_ids=(10 + index, 2), position=index) for index in range(3)),
    tiers=((2,), (0, 1)),
)
THUMB = Rating(
    event_id="t",
    conversation_id="c",
    person="p",
    prompt_token_ids=(1, 3),
    candidate=Candidate(token_ids=(10, 2)),
    up=True,
)
SIGNAL = replace(THUMB, up=False, signal="stop")


def test_each_candidate_has_the_rank_of_its_tier():
    assert RANKING.ranks == (1, 1, 0)
    assert ordered_pairs(RANKING) == [(2, 0), (2, 1)] and ordered_pairs(THUMB) == []
    assert pairs(RANKING)[2] == ((1, 3), (12, 2)) and pairs(THUMB) == [((1, 3), (10, 2))]


def test_a_signal_is_no_thumb():
    assert [(is_thumb(vote), is_signal(vote)) for vote in (RANKING, THUMB, SIGNAL)] == [
        (False, False),
        (True, False),
        (False, True),
    ]


def test_a_tie_orders_nothing():
    assert orders_answers(RANKING) and orders_answers(THUMB) and orders_answers(SIGNAL)
    assert not orders_answers(replace(RANKING, tiers=((0, 1, 2),)))


def test_a_vote_that_names_no_objective_is_about_the_first():
    assert THUMB.objective_index(("helpful", "harmless")) == 0
    assert replace(THUMB, objective="harmless").objective_index(("helpful", "harmless")) == 1


def test_votes_on_the_same_answers_have_one_subject_whatever_they_say():
    turned = replace(RANKING, event_id="later", candidates=RANKING.candidates[::-1], tiers=((0, 1, 2),))
    assert subject(turned) == subject(RANKING)
    assert subject(replace(THUMB, up=False)) == subject(THUMB)
    others = [SIGNAL, replace(THUMB, person="q"), replace(THUMB, objective="harmless"), RANKING]
    assert len({subject(vote) for vote in [THUMB, *others]}) == 5


def test_a_subject_says_what_kind_of_vote_it_is_in_the_words_that_checkpoints_hold_digests_of():
    correction = replace(RANKING, candidates=RANKING.candidates[:2], tiers=((0,), (1,)), correction=True)
    assert [subject(vote)[3] for vote in (THUMB, SIGNAL, RANKING, correction)] == [
        "thumb",
        "signal",
        "comparison",
        "correction",
    ]


def test_corrections_of_one_answer_have_one_subject_whatever_they_say_instead():
    def corrected(text: int, answer: int) -> Comparison:
        candidates = (Candidate(token_ids=(text,)), Candidate(token_ids=(answer,)))
        return replace(RANKING, candidates=candidates, tiers=((0,), (1,)), correction=True)

    assert subject(corrected(1, 9)) == subject(corrected(2, 9)) != subject(corrected(1, 8))
    assert subject(corrected(1, 9)) != subject(replace(corrected(1, 9), correction=False)), "a pair that was shown"
