"""Each vote is told once a stage, when it reaches it, from its click on."""

import pytest
from prometheus_client import CollectorRegistry

from rlhf_online.metrics import TrainerMetrics
from rlhf_online.training import click_times
from rlhf_online.training.click_times import ClickTimes

CLICK = 1_000_000


class Clicks:
    """Click times under a clock that stands `ms` after the click."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ms = 0
        self.registry = CollectorRegistry()
        self.times = ClickTimes(TrainerMetrics(self.registry).to_live)
        patch.setattr(click_times, "now_ms", lambda: CLICK + self.ms)

    def told(self, stage: str) -> tuple[float | None, float | None]:
        name = "rlhf_click_to_live_seconds"
        count, total = (self.registry.get_sample_value(f"{name}_{what}", {"stage": stage}) for what in ("count", "sum"))
        return count, total


@pytest.fixture
def clicks(monkeypatch: pytest.MonkeyPatch) -> Clicks:
    return Clicks(monkeypatch)


def test_a_stage_counts_from_the_click_on(clicks: Clicks) -> None:
    for ms, stage in (1000, "joined"), (3000, "trained"), (4000, "scored"), (9000, "gated"):
        clicks.ms = ms
        if stage in ("joined", "trained"):
            getattr(clicks.times, stage)([CLICK, CLICK - 500])
        else:
            getattr(clicks.times, stage)()
        assert clicks.told(stage) == (2, 2 * ms / 1000 + 0.5)


def test_votes_whose_policy_did_not_pass_go_on_with_the_next_one(clicks: Clicks) -> None:
    clicks.times.trained([CLICK])
    clicks.times.scored()
    clicks.times.trained([CLICK, CLICK])
    clicks.times.gated()
    assert clicks.told("gated") == (1, 0), "the later two have no scores yet"
    clicks.times.scored()
    clicks.times.gated()
    clicks.times.gated()
    assert (clicks.told("scored")[0], clicks.told("gated")[0]) == (3, 3), "once"


def test_a_vote_of_which_nobody_knows_when_it_was_given_is_told_nowhere(clicks: Clicks) -> None:
    clicks.times.joined([0])
    clicks.times.trained([0])
    clicks.times.scored()
    assert [clicks.told(stage)[0] for stage in ("joined", "trained", "scored")] == [0, 0, 0]


def test_a_clock_that_is_behind_the_one_of_the_click_says_0(clicks: Clicks) -> None:
    clicks.times.joined([CLICK + 5000])
    assert clicks.told("joined") == (1, 0)


def test_of_any_number_of_votes_the_last_are_remembered(clicks: Clicks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click_times, "MOST", 3)
    for _ in range(4):
        clicks.times.trained([CLICK, CLICK])
    clicks.times.scored()
    clicks.times.trained([CLICK, CLICK])
    clicks.times.scored()
    clicks.times.gated()
    assert (clicks.told("trained")[0], clicks.told("scored")[0], clicks.told("gated")[0]) == (10, 5, 3)
