"""The trainer's metrics move for what happened in a cycle, and by as much."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from rlhf_online.canary.decision import Evidence
from rlhf_online.canary.record import Canary
from rlhf_online.metrics import TrainerMetrics, exposition
from rlhf_online.metrics.labels import ADVANTAGE, LAG
from rlhf_online.training import update_metrics
from rlhf_online.training.policy.mismatch import Mismatch
from rlhf_online.training.policy_update import PolicyReport
from rlhf_online.training.progress import JudgedVersion
from tests.support.metric_labels import strays
from tests.support.samples import value
from tests.support.trainer_world import World, world


class Told:
    """A trainer's metrics, and what they tell."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = TrainerMetrics(self.registry)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"rlhf_{name}", labels)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def test_a_cycle_is_told_from_the_join_to_the_gate(tiny: World) -> None:
    with tiny.trainer() as trainer:
        metrics = trainer.parts.reporter.metrics
        tiny.chat(26)
        votes = len(tiny.accepted)
        assert trainer.run_once()
        assert value(metrics.intake.joins) == votes
        stages = {stage: value(metrics.to_live.labels(stage), "_count") for stage in ("joined", "trained", "scored")}
        learned = trainer.parts.ledger.counts()["trained"]
        assert stages == {"joined": votes, "trained": learned, "scored": learned} and 0 < learned < votes
        assert value(metrics.to_live.labels("gated"), "_count") == learned, "the gate is lenient"
        policy = metrics.policy
        assert value(policy.updates.labels("ppo", "kept")) == 1
        assert value(policy.answers) == value(policy.staleness, "_count") > 0
        assert value(policy.staleness, "_sum") == 0, "one version has written all of them"
        mismatch = metrics.mismatch
        assert 0 <= value(mismatch.k3.labels("0")) < 1e-6 and value(mismatch.outside.labels("0")) == 0
        assert value(mismatch.limit) == 0.01
        assert 0 < value(policy.grad_norm) < math.inf and 0 < value(policy.entropy) < 10
        mean, std, least, most = (value(policy.advantage.labels(figure)) for figure in ADVANTAGE.values)
        assert least < mean < most and std > 0
        assert 0 <= value(policy.clip_fraction) <= 1 and value(policy.kl_coef) == 0.03
        assert value(metrics.reward_model.loss) > 0 and value(metrics.reward_model.spread) > 0
        assert value(metrics.gate.candidates.labels("policy", "passed")) == 1
        assert value(metrics.gate.verdicts.labels("policy", "kl", "passed")) == 1
        assert value(metrics.gate.figure.labels("win_rate")) == value(metrics.gate.win_rate)
        assert value(metrics.cycle_end) > 0 and value(metrics.intake.lag) == 0
        scraped = exposition(metrics.registry, "")[0].decode()
        assert strays(scraped, metrics.entries) == []
        assert not trainer.run_once()
        assert value(metrics.intake.joins) == votes, "nothing was told twice"


UPDATE = {
    "policy_loss": 0.5, "clip_fraction": 0.25, "grad_norm": 2.0,
    "advantage_mean": 0.1, "advantage_std": 1.0, "advantage_min": -2.0, "advantage_max": 3.0,
}  # fmt: skip


def test_an_update_is_told_under_its_algorithm_and_one_that_has_no_such_figure_says_nan(told: Told) -> None:
    report = PolicyReport(algorithm="grpo", rollouts=7, step_kl=0.2, score=1.5, kl_coef=0.03, behaviour_k3=0.01,
                          sampling_entropy=1.25, stats=UPDATE)  # fmt: skip
    update_metrics.show_update(told.metrics.policy, report)
    assert told("trainer_updates_total", algorithm="grpo", outcome="kept") == 1
    assert told("trainer_updates_total", algorithm="ppo", outcome="kept") == 0, "each algorithm has its own"
    figures = (
        "policy_loss",
        "clip_fraction",
        "grad_norm",
        "entropy_nats",
        "behaviour_k3",
        "step_kl",
        "reward",
        "rollouts",
    )
    assert [told(f"trainer_{name}") for name in figures] == [0.5, 0.25, 2.0, 1.25, 0.01, 0.2, 1.5, 7]
    assert [told("trainer_advantage", figure=figure) for figure in ADVANTAGE.values] == [0.1, 1.0, -2.0, 3.0]
    kto = PolicyReport(algorithm="kto", rollouts=3, undone=True, stats={"policy_loss": 0.75})
    update_metrics.show_update(told.metrics.policy, kto)
    assert told("trainer_updates_total", algorithm="kto", outcome="undone") == 1
    assert told("trainer_policy_loss") == 0.75
    assert math.isnan(told("trainer_clip_fraction") or 0) and math.isnan(told("trainer_entropy_nats") or 0)
    update_metrics.show_update(told.metrics.policy, PolicyReport(algorithm="kto", reason="no answer"))
    assert told("trainer_updates_total", algorithm="kto", outcome="skipped") == 1
    assert told("trainer_policy_loss") == 0.75, "the last update's"


def test_mismatch_is_told_by_how_many_versions_came_after_the_one_that_wrote(told: Told) -> None:
    staleness = {f"policy-00000{number}": 7 - number for number in range(8)}
    found = {
        "policy-000007": Mismatch(tokens=10, k3=0.001, outside=0.1),
        "policy-000005": Mismatch(tokens=5, k3=0.2, outside=0.5),
        "policy-000002": Mismatch(tokens=30, k3=0.4, outside=0.6),
        "policy-000000": Mismatch(tokens=10, k3=0.8, outside=1.0),
    }
    report = PolicyReport(algorithm="ppo", rollouts=7, mismatch=found)
    update_metrics.show_mismatch(told.metrics.mismatch, report, staleness)
    k3 = {lag: told("trainer_mismatch_k3", lag=lag) or 0.0 for lag in LAG.values}
    outside = {lag: told("trainer_mismatch_outside", lag=lag) or 0.0 for lag in LAG.values}
    assert {lag: value for lag, value in k3.items() if not math.isnan(value)} == {"0": 0.001, "2": 0.2, "5+": 0.5}
    assert {lag: value for lag, value in outside.items() if not math.isnan(value)} == {"0": 0.1, "2": 0.5, "5+": 0.7}
    update_metrics.show_mismatch(told.metrics.mismatch, PolicyReport(algorithm="kto"), staleness)
    assert told("trainer_mismatch_k3", lag="0") == 0.001, "the last update's that there was"
    update_metrics.show_mismatch(told.metrics.mismatch, PolicyReport(algorithm="kto", rollouts=3), staleness)
    assert all(math.isnan(told("trainer_mismatch_k3", lag=lag) or 0) for lag in LAG.values), "none of it is the last's"


def _judged(passed: bool, version: str = "policy-000003", **figures: float) -> JudgedVersion:
    checks = [{"name": "kl", "passed": True}, {"name": "length", "passed": passed}]
    return JudgedVersion(
        version=version, tuning="full", parent="policy-000002", reward_version="reward-000001", kl=1.5,
        position={}, probe=(), passed=passed, reasons=(), figures=figures, report={"checks": checks},
    )  # fmt: skip


def test_what_each_check_says_of_a_candidate_is_counted(told: Told) -> None:
    update_metrics.show_verdict(told.metrics.gate, _judged(True, win_rate=0.75, length_ratio=1.1))
    update_metrics.show_verdict(told.metrics.gate, _judged(False, win_rate=0.25))
    assert [told("gate_candidates_total", kind="policy", verdict=verdict) for verdict in ("passed", "rejected")] == [
        1,
        1,
    ]

    def verdicts(check: str) -> list[float | None]:
        return [
            told("gate_verdicts_total", kind="policy", check=check, verdict=verdict)
            for verdict in ("passed", "objected")
        ]

    assert (verdicts("kl"), verdicts("length"), verdicts("golden")) == ([2, 0], [1, 1], [0, 0])
    assert told("gate_figure", figure="win_rate") == told("trainer_win_rate") == 0.25
    assert math.isnan(told("gate_figure", figure="length_ratio") or 0), "the last candidate's was not measured"


def test_verdicts_of_an_audience_are_counted_apart_while_it_is_defined(told: Told) -> None:
    gate = told.metrics.gate

    def rejected(kind: str) -> float | None:
        return told("gate_candidates_total", kind=kind, verdict="rejected")

    assert (rejected("policy"), rejected("policy.brief")) == (0, None)
    gate.keep(["policy", "policy.brief"])
    assert (
        rejected("policy.brief") == told("gate_verdicts_total", kind="policy.brief", check="kl", verdict="passed") == 0
    )
    update_metrics.count_verdict(gate, _judged(False, "policy.brief-000000", win_rate=0.25))
    gate.keep(["policy", "policy.brief", "policy.long"])
    assert (rejected("policy"), rejected("policy.brief"), rejected("policy.long")) == (0, 1, 0)
    assert told("gate_verdicts_total", kind="policy.brief", check="length", verdict="objected") == 1
    assert told("trainer_win_rate") == 0, "everybody's alone"
    gate.keep(["policy", "policy.long"])
    assert rejected("policy.brief") is None
    assert told("gate_verdicts_total", kind="policy.brief", check="length", verdict="objected") is None
    assert (rejected("policy"), rejected("policy.long")) == (0, 0)


def test_a_canary_is_told_with_its_evidence_until_it_ends(told: Told) -> None:
    canary = Canary(
        version="policy-000012", live="policy-000011", steps=(0.1, 0.5), step=1, began_ms=5000, since_ms=6000
    )
    shares: dict[str, Any] = {"aborted": 0.125, "empty": 0.0, "slow": None, "thumbs_down": 0.5}
    found = Evidence(people=9, better=math.log(8), worse=math.log(0.5), preference=(0.4, 0.9), shares=shares)
    update_metrics.show_canary(told.metrics.canary, canary, found, answers=40)
    assert told("canary_info", version="policy-000012", live="policy-000011") == 1
    figures = ("share", "answers", "people", "began_timestamp_seconds")
    assert [told(f"canary_{name}") for name in figures] == [0.5, 40, 9, 5]
    assert told("canary_evidence", side="better") == pytest.approx(8)
    assert told("canary_evidence", side="worse") == pytest.approx(0.5)
    assert [told("canary_preference", end=end) for end in ("low", "high")] == [0.4, 0.9]
    assert told("canary_guardrail_share", guardrail="aborted") == 0.125
    assert math.isnan(cast(float, told("canary_guardrail_share", guardrail="slow")))
    update_metrics.show_no_canary(told.metrics.canary)
    assert told("canary_info", version="policy-000012", live="policy-000011") is None
    assert [told(f"canary_{name}") for name in figures] == [0, 0, 0, 0]
    assert told("canary_evidence", side="better") is None
