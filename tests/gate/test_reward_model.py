"""The reward model that taught the candidate, by its figures on held-out votes."""

from collections.abc import Mapping

from rlhf_online.gate.check import Finding
from rlhf_online.gate.reward_model import RewardModelCheck
from tests.support.gate import answers, evidence_of

FIGURES = {
    "accuracy": 0.6, "accuracy_low": 0.5, "accuracy_high": 0.7, "accuracy_n": 100,
    "ece": 0.2, "ece_low": 0.1, "ece_high": 0.3,
}  # fmt: skip


def found(figures: Mapping[str, float] = FIGURES, **settings: float) -> Finding:
    return RewardModelCheck(**settings).examine(evidence_of(answers([1.0]), answers([0.0]), reward_model=figures))


def test_its_figures_are_told() -> None:
    finding = found()
    assert finding.objections == ()
    assert finding.figures == {f"reward_{name}": value for name, value in FIGURES.items() if name != "accuracy_n"}


def test_it_must_reach_the_least_accuracy_by_its_interval() -> None:
    assert found(min_accuracy=0.7).objections == ()
    assert found(min_accuracy=0.71).objections == ("its reward model orders 0.60 of held-out votes rightly < 0.71",)


def test_its_calibration_error_may_be_as_large_as_is_allowed_by_its_interval() -> None:
    assert found(max_ece=0.1).objections == ()
    assert found(max_ece=0.09).objections == ("its reward model's calibration error on held-out votes 0.20 > 0.09",)


def test_few_comparisons_say_nothing_of_the_calibration() -> None:
    assert found(FIGURES | {"accuracy_n": 99}, max_ece=0.09).objections == ()


def test_nothing_is_known_against_one_that_was_not_measured() -> None:
    unknown = evidence_of(answers([1.0]), answers([0.0]), reward_model={"accuracy_n": 0, "accuracy_high": 0.0})
    assert RewardModelCheck(min_accuracy=0.9).examine(unknown) == Finding(figures={})
