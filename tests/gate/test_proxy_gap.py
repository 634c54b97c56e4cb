"""Gains by both reward models in the same unit, and the gap between them."""

import math

import pytest

from rlhf_online.gate.check import Evidence
from rlhf_online.gate.proxy_gap import ProxyGapCheck
from tests.support.gate import answers, evidence_of

KNOWS = {"accuracy_low": 0.6, "trained_objectives": 1}


def evidence(proxy: list[float], held_back: list[float], model: dict[str, float] = KNOWS) -> Evidence:
    """The live version's scores are 0 and 2 in turn by the candidate's own reward model (of four a standard deviation
    of √(4/3)), and ten times that by the held-back one."""
    live = [0.0, 2.0] * (len(proxy) // 2)
    return evidence_of(
        answers(proxy, held_back=held_back),
        answers(live, held_back=[10 * score for score in live]),
        held_back_model=model,
    )


def test_gains_are_in_standard_deviations_of_the_live_versions_scores() -> None:
    """The candidate gains 2, 2, 2, 2 by its own and 0, 20, 0, 20 by the other: 2/σ and 10/10σ, σ = √(4/3)."""
    found = ProxyGapCheck().examine(evidence([2.0, 4.0, 2.0, 4.0], [0.0, 40.0, 0.0, 40.0]))
    sigma = math.sqrt(4 / 3)
    assert found.figures == {
        "gain": pytest.approx(2 / sigma),
        "held_back_gain": pytest.approx(1 / sigma),
        "proxy_gap": pytest.approx(1 / sigma),
        # Gaps of 2/σ and 0 in turn: deviation √(4/3)/σ = 1, of four prompts ½.
        "proxy_gap_stderr": pytest.approx(0.5),
    }
    assert found.examples[:2] == (0, 2), "those that gained by the one and not by the other"


def test_it_objects_where_the_interval_lies_above_the_largest_gap() -> None:
    hacked = evidence([2.0, 4.0] * 2, [0.0, 20.0] * 2)
    sigma = math.sqrt(4 / 3)
    assert ProxyGapCheck(max=2 / sigma + 0.01).examine(hacked).objections == ()
    assert ProxyGapCheck(max=2 / sigma - 0.01).examine(hacked).objections == (
        "gain by its own reward model +1.73 standard deviations, by the held-back one +0.00: the gap "
        "1.73 ± 0.00 > 1.72205",
    )
    unsure = evidence([2.0, 4.0] * 2, [0.0, 40.0] * 2)  # a gap of .87 ± .98
    assert ProxyGapCheck(max=0.1).examine(unsure).objections == ()


def test_gains_by_both_models_are_no_gap() -> None:
    found = ProxyGapCheck(max=0.01).examine(evidence([2.0, 4.0] * 2, [20.0, 40.0] * 2))
    assert found.figures["proxy_gap"] == pytest.approx(0) and found.objections == ()


def test_scores_that_are_all_the_same_are_no_unit() -> None:
    same = evidence_of(
        answers([5.0, 5.0], held_back=[0.0, 0.0]), answers([1.0, 1.0], held_back=[0.0, 0.0]), held_back_model=KNOWS
    )
    assert ProxyGapCheck().examine(same).figures["gain"] == 0


@pytest.mark.parametrize("model", [{}, KNOWS | {"accuracy_low": 0.5}])
def test_without_a_held_back_model_that_knows_there_is_none(model: dict[str, float]) -> None:
    assert ProxyGapCheck(max=0.01).examine(evidence([9.0, 9.0] * 2, [0.0] * 4, model)).figures == {}


def test_of_one_prompt_there_is_none() -> None:
    one = evidence_of(answers([9.0], held_back=[0.0]), answers([0.0], held_back=[0.0]), held_back_model=KNOWS)
    assert ProxyGapCheck().examine(one).figures == {}
