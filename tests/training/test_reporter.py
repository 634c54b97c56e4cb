"""What the status file says of a trainer at work."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from rlhf_online.metrics import TrainerMetrics
from rlhf_online.state import StateDir
from rlhf_online.training import reporter
from rlhf_online.training.reporter import Reporter


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
