"""The heads' disagreement about the candidate's answers, against that about the live version's."""

import math

import pytest

from rlhf_online.gate.disagreement import DisagreementCheck
from tests.support.gate import answers, evidence_of


def test_the_mean_spreads_are_compared() -> None:
    found = DisagreementCheck(max_ratio=2.0).examine(
        evidence_of(answers([0.0] * 3, spreads=[1.0, 3.0, 2.0]), answers([0.0] * 3, spreads=[0.5, 1.0, 1.5]))
    )
    assert found.figures == {"spread": 2.0, "live_spread": 1.0, "spread_ratio": 2.0}
    assert found.objections == () and found.examples == (1, 2, 0)


def test_answers_on_which_the_heads_part_are_refused() -> None:
    found = DisagreementCheck(max_ratio=2.0).examine(
        evidence_of(answers([0.0] * 2, spreads=[3.0, 2.0]), answers([0.0] * 2, spreads=[1.0, 1.0]))
    )
    assert found.objections == (
        "the reward model's heads disagree 2.50 times as much about its answers as about the live version's > 2",
    )


@pytest.mark.parametrize(("spread", "live"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, math.inf)])
def test_what_is_no_number_is_refused(spread: float, live: float) -> None:
    found = evidence_of(answers([0.0], spreads=[spread]), answers([0.0], spreads=[live]))
    assert DisagreementCheck().examine(found).objections


def test_a_model_of_one_head_agrees_with_itself() -> None:
    assert DisagreementCheck().examine(evidence_of(answers([0.0]), answers([0.0]))).figures == {}


def test_an_answer_without_a_score_has_no_spread() -> None:
    found = DisagreementCheck().examine(
        evidence_of(answers([math.nan, 0.0], spreads=[math.nan, 1.0]), answers([0.0, 0.0], spreads=[9.0, 1.0]))
    )
    assert found.figures["spread_ratio"] == 1.0
