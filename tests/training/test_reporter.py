"""What the status file says of a trainer at work."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from rlhf_online.feedback.standing import Standing
from rlhf_online.metrics import TrainerMetrics
from rlhf_online.metrics import trainer as trainer_metrics
from rlhf_online.state import StateDir
from rlhf_online.training import reporter
from rlhf_online.training.reporter import Reporter
from rlhf_online.training.reward_update import RewardReport
from rlhf_online.training.votes.evaluation import Measured
from rlhf_online.watch.monitors import Reading


class Clock:
    """Seconds as a test wants them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(reporter, "time", made)
    yield made


def _reporter(folder: Path) -> tuple[Reporter, StateDir]:
    state = StateDir(folder)
    return Reporter(state, TrainerMetrics(CollectorRegistry())), state


def test_a_phase_is_shown_while_it_lasts_and_timed_when_it_ends(tmp_path: Path, clock: Clock) -> None:
    made, state = _reporter(tmp_path)
    for seconds in (2.0, 3.0):
        with made.phase("policy"):
            assert state.read_status("trainer")["phase"] == "policy"
            clock.now += seconds
    assert state.read_status("trainer")["phase"] == "waiting"
    made.cycle("promoted", policy_version="policy-000001")
    [item] = state.read_status("trainer")["history"]
    assert (item["outcome"], item["policy_version"], item["seconds"]) == ("promoted", "policy-000001", {"policy": 5.0})
    made.cycle("skipped")
    assert state.read_status("trainer")["history"][-1]["seconds"] == {}, "seconds are a cycle's own"


def test_steps_are_shown_at_most_once_a_second_and_end_with_their_phase(tmp_path: Path, clock: Clock) -> None:
    made, state = _reporter(tmp_path)

    def shown() -> tuple[Any, Any]:
        status = state.read_status("trainer")
        return status["step"], status["steps"]

    with made.phase("reward"):
        made.step(0, 8)
        assert shown() == (0, 8)
        clock.now += 0.5
        made.step(1, 8)
        assert shown() == (0, 8), "the file is not written for every step of a small model"
        clock.now += 0.5
        made.step(2, 8)
        assert shown() == (2, 8)
        made.step(0, 3)
        assert shown() == (0, 3), "another update begins"
    assert shown() == (0, 0)


def test_the_history_and_the_last_figures_go_on_over_restarts(tmp_path: Path) -> None:
    made, _ = _reporter(tmp_path)
    assert made.accuracy is None
    made.set(kl=0.5, reward_accuracy=0.75)
    for _ in range(reporter.HISTORY + 5):
        made.cycle("promoted")
    made.set(cycle=7)
    again, state = _reporter(tmp_path)
    again.set(phase="reward")
    status = state.read_status("trainer")
    assert (status["kl"], again.accuracy, status["cycle"]) == (0.5, 0.75, 0)
    assert len(status["history"]) == reporter.HISTORY


def _metered(folder: Path) -> tuple[Reporter, CollectorRegistry]:
    collectors = CollectorRegistry()
    return Reporter(StateDir(folder), TrainerMetrics(collectors)), collectors


def test_progress_is_a_step_or_a_phase_that_ended_and_not_a_wait(tmp_path: Path) -> None:
    made, collectors = _metered(tmp_path)

    def moved_by(action: Callable[[], object]) -> bool:
        made.metrics.progress.set(1.0)
        action()
        return collectors.get_sample_value("rlhf_trainer_progress_timestamp_seconds") != 1.0

    phase = made.phase("policy")
    assert not moved_by(phase.__enter__)
    assert moved_by(lambda: made.step(1, 8))
    assert not moved_by(lambda: made.waiting("scoring answers", OSError("away")))
    assert moved_by(lambda: phase.__exit__(None, None, None))


def test_counts_stand_in_the_metrics_under_their_reasons(tmp_path: Path) -> None:
    made, collectors = _metered(tmp_path)
    made.versions("policy-000002", "reward-000001")
    made.votes({"trained": 3, "pending": 2})
    made.dead_letters({"damaged": 4})
    made.left_out({"too_old": 5})
    for outcome in ("promoted", "undone", "undone"):
        made.cycle(outcome)
    with made.phase("policy"):
        pass

    def value(name: str, **labels: str) -> float | None:
        return collectors.get_sample_value(f"rlhf_trainer_{name}", labels)

    assert value("version_info", policy="policy-000002", reward="reward-000001") == 1
    assert (value("votes", disposition="trained"), value("votes", disposition="pending")) == (3, 2)
    assert value("dead_letters", reason="damaged") == 4
    assert value("rollouts_left_out", reason="too_old") == 5
    assert (value("cycles_total", outcome="promoted"), value("cycles_total", outcome="undone")) == (1, 2)
    assert value("undone_updates_total") == 2
    assert value("phase_seconds_count", phase="policy") == 1
    status = StateDir(tmp_path).read_status("trainer")
    assert (status["policy_version"], status["reward_version"]) == ("policy-000002", "reward-000001")
    assert status["votes"] == {"trained": 3, "pending": 2}


def _report(measured: Measured) -> RewardReport:
    return RewardReport(
        seen=9,
        new=8,
        loss=0.5,
        passes=2,
        held_out_loss=0.4,
        truncated=3,
        skipped={"superseded": 2},
        signal_reliability={"stop": 0.25},
        standing=Standing(believed=7, doubted=("a", "b"), alike=(("a", "c", "d"),)),
        measured=measured,
    )


NOTHING = Measured(
    accuracy=0.0, accuracy_low=0.0, accuracy_high=1.0, accuracy_n=0, ece=0.0, ece_low=0.0, ece_high=1.0,
    thumb_accuracy=0.0, thumb_auc=0.0, thumb_auc_low=0.0, thumb_auc_high=1.0, thumb_n=0,
)  # fmt: skip


def test_an_update_of_the_reward_model_is_told_and_what_it_could_not_measure_leaves_the_last_figures(
    tmp_path: Path,
) -> None:
    made, collectors = _metered(tmp_path)

    def value(name: str, **labels: str) -> float | None:
        return collectors.get_sample_value(f"rlhf_trainer_{name}", labels)

    made.reward(_report(replace(NOTHING, accuracy=0.75, accuracy_n=40)), {"helpful": 2.0})
    made.reward(_report(NOTHING), {"helpful": 3.0})
    assert made.accuracy == value("reward_accuracy") == value("reward_held_out", figure="accuracy") == 0.75
    assert value("objective_weight", objective="helpful") == 3.0
    assert value("signal_reliability", signal="stop") == 0.25
    people = [value("people", standing=name) for name in ("believed", "doubted", "capped", "alike")]
    assert people == [7, 2, 0, 3]
    assert (value("skipped_total", reason="superseded"), value("cut_prompts_total")) == (4, 6)
    made.reward(_report(replace(NOTHING, thumb_auc=0.875, thumb_n=10)), {})
    assert value("reward_held_out", figure="thumb_auc") == 0.875, "measured on thumbs alone"
    assert made.accuracy == value("reward_accuracy") == 0.75


def test_the_held_back_models_figures_stand_apart(tmp_path: Path) -> None:
    made, collectors = _metered(tmp_path)
    made.held_back(_report(replace(NOTHING, accuracy=0.625, accuracy_n=40)))
    made.held_back(_report(NOTHING))
    figure = {"figure": "accuracy"}
    assert collectors.get_sample_value("rlhf_trainer_held_back_reward_held_out", figure) == 0.625
    assert collectors.get_sample_value("rlhf_trainer_reward_held_out", figure) is None and made.accuracy is None


def test_what_is_waited_for_is_told_until_the_next_phase(tmp_path: Path) -> None:
    made, state = _reporter(tmp_path)
    made.waiting("reading the log", OSError("no answer"))
    assert state.read_status("trainer")["waiting_for"] == "reading the log: no answer"
    with made.phase("reward"):
        assert state.read_status("trainer")["waiting_for"] == ""
        made.waiting("scores", OSError("no answer"))
    assert state.read_status("trainer")["waiting_for"] == ""


def test_the_status_is_written_when_something_is_new_and_a_full_disk_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, state = _reporter(tmp_path)
    made.set(cycle=3)
    (tmp_path / "status" / "trainer.json").unlink()
    made.set(cycle=3)
    assert state.read_status("trainer") == {}, "nothing was new"

    def full(self: StateDir, service: str, values: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(StateDir, "write_status", full)
        made.set(cycle=4)
    made.set(phase="policy")
    status = state.read_status("trainer")
    assert (status["cycle"], status["phase"]) == (4, "policy") and status["updated_ms"] > 0


def test_orphans_are_counted_as_they_come_and_not_those_of_a_life_before(tmp_path: Path) -> None:
    made, collectors = _metered(tmp_path)
    for orphaned, counted in ((4, 0), (4, 0), (6, 2), (7, 3)):
        made.votes({"trained": 3, "orphaned": orphaned})
        assert collectors.get_sample_value("rlhf_trainer_orphans_total") == counted
        assert collectors.get_sample_value("rlhf_trainer_votes", {"disposition": "orphaned"}) == orphaned


def test_what_is_not_read_is_no_older_than_the_last_time_that_the_log_was_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(trainer_metrics, "time", clock)
    made, collectors = _metered(tmp_path)
    clock.now += 90
    assert collectors.get_sample_value("rlhf_trainer_log_lag_seconds") == 90
    made.metrics.intake.caught_up()
    assert collectors.get_sample_value("rlhf_trainer_log_lag_seconds") == 0
    clock.now += 5
    assert collectors.get_sample_value("rlhf_trainer_log_lag_seconds") == 5


def test_what_the_watch_says_is_told_without_names_but_where_operators_look(tmp_path: Path) -> None:
    made, collectors = _metered(tmp_path)
    with capture_logs() as logs:
        made.watch(
            "poison", Reading(evidence=3.0, says="of 9 comparisons", rows=({"person": "beef", "trait": "mango"},))
        )
        made.watch(
            "poison", Reading(evidence=3.0, says="of 9 comparisons", rows=({"person": "beef", "trait": "mango"},))
        )
    assert [line["event"] for line in logs] == ["the watch raised an alarm"], "once, while it stands"
    assert collectors.get_sample_value("rlhf_watch_evidence", {"monitor": "poison"}) == 3.0
    assert "beef" not in str(logs)
    told = StateDir(tmp_path).read_status("watch")["monitors"]["poison"]
    assert told["rows"] == [{"person": "beef", "trait": "mango"}] and told["alarm"]
    assert "beef" not in str(StateDir(tmp_path).read_status("trainer"))
    made.name_nobody()
    told = StateDir(tmp_path).read_status("watch")["monitors"]["poison"]
    assert told["rows"] == [] and told["alarm"]
