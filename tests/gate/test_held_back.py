"""The win rate by the held-back reward model, by hand-computed intervals."""

import math

import pytest

from rlhf_online.gate.check import Evidence
from rlhf_online.gate.held_back import HeldBackCheck
from rlhf_online.gate.settings import GateSettings
from rlhf_online.gate.verdict import judge
from tests.support.gate import answers, evidence_of

KNOWS = {"accuracy_low": 0.6, "accuracy_n": 100, "trained_objectives": 1}
GUESSES = KNOWS | {"accuracy_low": 0.5}


def evidence(held_back: list[float], model: dict[str, float] = KNOWS) -> Evidence:
    """The candidate wins by its own reward model; by the held-back one the live version's answers all score 0."""
    count = len(held_back)
    live = answers([0.0] * count, held_back=[0.0] * count)
    return evidence_of(answers([1.0] * count, held_back=held_back), live, held_back_model=model)


def test_the_win_rate_has_wilsons_interval() -> None:
    """8 of 10, whose variance is an estimate, so that they count as n = 9: (.8 + z²/2n ± z √(.16/n + z²/4n²)) /
    (1 + z²/n) with z = 1.96 is .4738 … .9467."""
    found = HeldBackCheck().examine(evidence([1.0] * 8 + [-1.0] * 2))
    assert found.figures == {
        "held_back_knows": 1.0,
        "held_back_win_rate": 0.8,
        "held_back_win_rate_low": pytest.approx(0.4738, abs=1e-4),
        "held_back_win_rate_high": pytest.approx(0.9467, abs=1e-4),
        "held_back_score": pytest.approx(0.6),
        "held_back_live_score": 0.0,
    }
    assert found.objections == () and found.examples == (8, 9, 0)


def test_a_tie_is_half_a_win() -> None:
    assert HeldBackCheck().examine(evidence([1.0, 0.0, -1.0])).figures["held_back_win_rate"] == 0.5


def test_a_prompt_that_was_asked_twice_is_no_two_samples() -> None:
    """Two prompts, each twice with the same outcome: of four samples two are worth something, and n is 2."""
    twice = evidence([1.0, -1.0, 1.0, -1.0])
    same = Evidence(
        prompts=[(10,), (11,), (10,), (11,)],
        prompt_texts=twice.prompt_texts,
        candidate=twice.candidate,
        live=twice.live,
        kl=twice.kl,
        reward_model={},
        held_back_model=KNOWS,
    )
    once, clustered = HeldBackCheck().examine(twice).figures, HeldBackCheck().examine(same).figures
    assert clustered["held_back_win_rate"] == once["held_back_win_rate"] == 0.5
    assert clustered["held_back_win_rate_low"] < once["held_back_win_rate_low"]


def test_it_objects_only_where_the_interval_lies_below_the_least_win_rate() -> None:
    """2 of 10 is .0533 … .5262, and of 12 is .0434 … .4624."""
    assert HeldBackCheck().examine(evidence([1.0] * 2 + [-1.0] * 8)).objections == ()
    lost = HeldBackCheck().examine(evidence([1.0] * 2 + [-1.0] * 10))
    assert lost.objections == (
        "win rate over the live version by the held-back reward model 0.17 (95 %: 0.04 … 0.46) < 0.5",
    )
    assert lost.examples == (2, 3, 4)
    assert HeldBackCheck(min_win_rate=0.46).examine(evidence([1.0] * 2 + [-1.0] * 10)).objections == ()


@pytest.mark.parametrize(
    ("model", "figures"),
    [(GUESSES, {"held_back_knows": 0.0}), (KNOWS | {"trained_objectives": 0}, {"held_back_knows": 0.0}), ({}, {})],
)
def test_a_model_that_knows_no_better_than_chance_says_so_and_nothing_else(model: dict, figures: dict) -> None:
    found = HeldBackCheck().examine(evidence([-1.0] * 20, model))
    assert (found.figures, found.objections) == (figures, ())


def test_what_it_has_no_score_for_is_left_out_and_of_nothing_there_is_no_pass() -> None:
    assert HeldBackCheck().examine(evidence([1.0, math.nan, -1.0])).figures["held_back_win_rate"] == 0.5
    verdict = judge(evidence([math.nan] * 3), GateSettings())
    assert not verdict.passed


def test_a_candidate_that_only_its_own_reward_model_likes_is_refused() -> None:
    verdict = judge(evidence([-1.0] * 20), GateSettings())
    assert not verdict.passed
    assert "held-back reward model 0.00" in verdict.reasons[0]
    assert judge(evidence([-1.0] * 20, {}), GateSettings()).passed, "there is no held-back model"
