"""What a cycle's end says: counts, versions, and the figures of an update, each under its own name."""

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace as Space
from typing import Any, cast

from prometheus_client import CollectorRegistry

from rlhf_online.metrics import TrainerMetrics
from rlhf_online.state import StateDir
from rlhf_online.training.cycle_report import end_cycle, end_published_cycle, show, update_facts
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.policy_update import PolicyReport
from rlhf_online.training.progress import JudgedVersion, Progress
from rlhf_online.training.reporter import Reporter

UPDATE = {
    "algorithm": "ppo", "kl": 0.1, "kl_coef": 0.2, "step_kl": 0.3, "score": 0.4, "length": 5.0,
    "behaviour_k3": 0.6, "rollouts": 7, "stats": {"clip_fraction": 0.8},
}  # fmt: skip


class Bench:
    def __init__(self, folder: Path) -> None:
        self.collectors = CollectorRegistry()
        self.state = StateDir(folder)
        buffer = Space(left_out=Counter(stale=1, full=2))
        parts = Space(
            ledger=Space(counts=lambda: {"trained": 5, "held_out": 1, "rollout": 99}),
            reporter=Reporter(self.state, TrainerMetrics(self.collectors)),
            intake=Space(
                pending=4,
                dead_letters=Space(counts={"damaged": 3}),
                policy_inputs=Space(buffer=buffer, left_out=Counter(greedy=8)),
            ),
        )
        self.parts = cast(TrainerParts, parts)
        self.progress = Progress(
            log_identity="a log", policy_version="policy-000002", reward_version="reward-000001", cycle=6,
            position={"local": 17}, left_out={"stale": 10},
        )  # fmt: skip

    def value(self, name: str, **labels: str) -> float | None:
        return self.collectors.get_sample_value(f"rlhf_trainer_{name}", labels)

    @property
    def status(self) -> dict[str, Any]:
        return self.state.read_status("trainer")


def test_counts_and_versions_are_shown(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    show(bench.parts, bench.progress)
    assert bench.status["votes"] == {"trained": 5, "held_out": 1, "pending": 4}, "an answer that was used is no vote"
    assert (bench.status["cycle"], bench.status["policy_version"]) == (6, "policy-000002")
    assert bench.status["reward_version"] == "reward-000001"
    assert bench.value("dead_letters", reason="damaged") == 3
    left_out = [bench.value("rollouts_left_out", reason=reason) for reason in ("stale", "full", "greedy")]
    assert left_out == [11, 2, 8], "those of the buffer, of the log, and of the updates together"
    assert bench.parts.intake.policy_inputs.buffer.left_out["stale"] == 1, "showing counts nothing twice"


def test_a_cycle_ends_with_where_it_stood(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.parts.reporter.set(reward_accuracy=0.75)
    end_cycle(bench.parts, bench.progress, "skipped", why="no answer")
    [item] = bench.status["history"]
    assert (item["outcome"], item["cycle"], item["why"]) == ("skipped", 6, "no answer")
    assert (item["reward_version"], item["position"], item["reward_accuracy"]) == ("reward-000001", {"local": 17}, 0.75)
    assert bench.status["votes"]["pending"] == 4


def _judged(**figures: float) -> JudgedVersion:
    return JudgedVersion(
        version="policy-000003", tuning="full", parent="policy-000002", reward_version="reward-000001", kl=1.5,
        position={"local": 17}, probe=(), passed=True, reasons=("why",), figures=figures,
    )  # fmt: skip


def test_a_version_ends_a_cycle_with_its_figures_and_what_serves_keeps_its_kl(tmp_path: Path) -> None:
    bench, report = Bench(tmp_path), cast(PolicyReport, Space(**UPDATE))
    end_published_cycle(bench.parts, bench.progress, "rejected", _judged(), report)
    assert bench.status["kl"] == 0.0, "the rejected one does not serve"
    assert (bench.value("kl"), bench.value("win_rate")) == (1.5, 0.0)
    assert bench.status["history"][-1]["win_rate"] is None, "it was not measured"
    assert math.isnan(bench.value("proxy_gap") or 0), "nor was that"
    end_published_cycle(bench.parts, bench.progress, "promoted", _judged(win_rate=0.625, proxy_gap=0.7), report)
    assert bench.status["kl"] == 1.5
    assert bench.value("proxy_gap") == 0.7
    assert bench.value("win_rate") == 0.625
    item = bench.status["history"][-1]
    assert (item["policy_version"], item["reasons"], item["kl"]) == ("policy-000003", ["why"], 1.5)
    assert (item["gate"], item["win_rate"]) == ({"win_rate": 0.625, "proxy_gap": 0.7}, 0.625)
    assert update_facts(report).items() <= item.items()


def test_what_the_gate_takes_of_a_cycle_is_told(tmp_path: Path) -> None:
    bench, report = Bench(tmp_path), cast(PolicyReport, Space(**UPDATE))
    bench.parts.reporter.seconds = {"policy": 6.0, "held_back": 1.0, "gate": 3.0}
    end_published_cycle(bench.parts, bench.progress, "promoted", _judged(win_rate=0.625), report)
    assert bench.status["history"][-1]["gate_share"] == bench.value("gate_share") == 0.4


def test_an_updates_facts_stand_under_their_names() -> None:
    assert update_facts(cast(PolicyReport, Space(**UPDATE))) == {
        "clip_fraction": 0.8, "algorithm": "ppo", "kl_before": 0.1, "kl_coef": 0.2, "step_kl": 0.3, "score": 0.4,
        "length": 5.0, "behaviour_k3": 0.6, "rollouts": 7,
    }  # fmt: skip
