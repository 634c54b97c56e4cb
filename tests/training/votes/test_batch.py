"""Votes as tensors, and the bootstrap weights of the heads."""

from dataclasses import replace

import pytest

from rlhf_online.feedback.votes import Candidate, Comparison, Rating
from rlhf_online.training.votes.batch import UNSURE_WEIGHT, assemble, bootstrap_weights
from rlhf_online.training.votes.raters import LOOKS, Raters


def _ranking(tiers: tuple[tuple[int, ...], ...], event_id: str = "a", strength: int = 0) -> Comparison:
    return Comparison(
        event_id=event_id,
        conversation_id="c",
        person="p",
        prompt_token_ids=(1, 5, 3),
        candidates=tuple(Candidate(token_ids=(10 + i, 2), position=i) for i in range(sum(map(len, tiers)))),
        tiers=tiers,
        strength=strength,
    )


def _thumb(up: bool) -> Rating:
    return Rating(
        event_id=f"t{up}",
        conversation_id="c",
        person="q",
        prompt_token_ids=(1, 3),
        candidate=Candidate(token_ids=(9, 2)),
        up=up,
    )


def test_assembly_tells_rankings_pairs_and_thumbs_apart():
    votes = [
        _thumb(True),
        _ranking(((1,), (0,)), strength=2),
        _ranking(((0,), (1, 2), (3,))),
        _ranking(((0, 1),)),
    ]
    batch = assemble(votes, 3, ["helpful"], Raters())
    assert len(batch.pairs) == 9 and batch.thumb_Q.tolist() == [0] and batch.up_Q.tolist() == [True]
    assert batch.chosen_P.tolist() == [2, 7] and batch.rejected_P.tolist() == [1, 8]
    assert batch.pairs[2][1] == (11, 2), "the better one"
    assert batch.tied_P.tolist() == [False, True] and batch.strength_P.tolist() == [2, 0]
    assert batch.rank_RG.tolist() == [[3, 4, 5, 6]] and batch.tiers_RG.tolist() == [[0, 1, 1, 2]]
    assert batch.rank_weights_RK.shape == (1, 3) and batch.pair_weights_PK.shape == (2, 3)


def test_assembly_weighs_doubt_and_names_objectives_and_signals():
    votes = [
        replace(_ranking(((0, 1),)), unsure=True, objective="harmless"),
        replace(_thumb(False), signal="stop", objective="harmless"),
        replace(_thumb(True), objective="helpful"),
        _ranking(((0,), (1,), (2,))),
    ]
    whole = assemble(votes, 2, ["helpful", "harmless"], Raters(), bootstrap=False)
    assert whole.pair_weights_PK.tolist() == [[UNSURE_WEIGHT] * 2] and whole.pair_objective_P.tolist() == [1]
    assert (whole.signals_H, whole.signal_H.tolist(), whole.signal_objective_H.tolist()) == (["stop"], [2], [1])
    assert whole.thumb_Q.tolist() == [3] and whole.thumb_objective_Q.tolist() == [0]
    assert whole.rank_objective_R.tolist() == [0] and whole.rank_weights_RK.tolist() == [[1, 1]]
    assert whole.weight() == 2 * (UNSURE_WEIGHT + 3) and UNSURE_WEIGHT == 0.25, "it counts a quarter"
    masked = assemble(votes, 2, ["helpful", "harmless"], Raters())
    assert masked.pair_weights_PK.tolist() == [[UNSURE_WEIGHT * read for read in bootstrap_weights("a", 2)]]


def test_a_vote_that_no_person_gave_weighs_as_much_as_it_is_believed():
    votes = [
        replace(_ranking(((0,), (1,))), by_ai=True),
        replace(_ranking(((0, 1),)), by_ai=True, unsure=True),
        _ranking(((0,), (1,))),
        replace(_ranking(((0,), (1,), (2,))), by_ai=True),
        replace(_thumb(True), by_ai=True),
        _thumb(False),
    ]
    batch = assemble(votes, 1, ["helpful"], Raters(), bootstrap=False, ai_weight=0.5)
    assert batch.pair_weights_PK.flatten().tolist() == [0.5, 0.5 * UNSURE_WEIGHT, 1.0]
    assert batch.rank_weights_RK.tolist() == [[0.5]] and batch.thumb_weights_QK.flatten().tolist() == [0.5, 1.0]


def test_who_compares_counts_as_far_as_they_are_believed_and_adds_to_what_is_shown_first():
    raters = Raters()
    raters.load_json({"scale": [1.0, 1.0], "people": {"p": [0.0, 0.5, 4.0], "q": [5.0, 0, 4], "r": [5.0, 0, 4]}})
    pair = replace(_ranking(((1,), (0,))), person="somebody else")
    votes = [_ranking(((0,), (1,), (2,))), pair, replace(_ranking(((0,), (1,))), by_ai=True), _thumb(True)]
    batch = assemble(votes, 1, ["helpful"], raters, bootstrap=False)
    assert batch.rank_weights_RK.flatten().tolist() == pytest.approx([0.5 / LOOKS])
    assert batch.pair_weights_PK.flatten().tolist() == [1.0, 1.0]
    assert batch.place_N.tolist() == [0.5, 0, 0, 0, 0, 0, 0, 0]
    assert batch.said == [(votes[0], 0), (votes[1], 3), (votes[2], 5), (votes[3], 7)]


def test_a_vote_that_is_capped_weighs_less_and_a_models_has_a_weight_of_its_own():
    votes = [_ranking(((0,), (1,)), "a"), _ranking(((0, 1),), "b"), replace(_ranking(((0,), (1,)), "c"), by_ai=True)]
    batch = assemble(
        votes, 1, ["helpful"], Raters(), bootstrap=False, ai_weight=0.5, capped={"a": 0.25, "c": 0.125, "d": 0.125}
    )
    assert batch.pair_weights_PK.flatten().tolist() == [0.25, 1.0, 0.5]


def test_every_head_reads_its_own_four_fifths_of_the_votes():
    assert bootstrap_weights("event", 5) == bootstrap_weights("event", 5)
    first, second = zip(*(bootstrap_weights(f"event-{i}", 2) for i in range(4000)), strict=True)
    assert set(first) == {0, 1}
    assert sum(first) / 4000 == pytest.approx(0.8, abs=0.02) and sum(second) / 4000 == pytest.approx(0.8, abs=0.02)
    both = sum(a * b for a, b in zip(first, second, strict=True)) / 4000
    assert both == pytest.approx(0.64, abs=0.03), "independent"
