"""The view draws what is on the dashboard, and nothing breaks while there is little on it."""

import asyncio
import io

import pytest
from rich.console import Console

from rlhf_online.simulation import view
from rlhf_online.simulation.traffic import Measurement, RewardStats, Sample
from rlhf_online.simulation.view import Dashboard, VersionRow


@pytest.fixture
def dashboard():
    dashboard = Dashboard("the loop")
    step = dashboard.step("live: people chat")
    step.begin()
    step.total, step.done = 10, 5
    for number, mean in enumerate((0.2, 0.5, 1.0)):
        rewards = RewardStats()
        for _ in range(30):
            rewards.add(mean)
        dashboard.records.by_version[f"policy-00000{number}"] = rewards
        dashboard.versions.append(VersionRow(f"policy-00000{number}", "retired", kl=number / 2, win_rate=0.61))
    dashboard.versions[-1].state = "live"
    dashboard.serving = "policy-000002"
    dashboard.records.answers = 90
    dashboard.records.traffic.requests = 123
    dashboard.records.latest.append(Sample("is fig a fruit ?", "sure yes", 1.2, "policy-000002"))
    dashboard.first = Measurement(mean=0.48, stderr=0.02, n=1110, samples=(), versions=())
    dashboard.swaps, dashboard.live_p50_s = 2, 21.0
    return dashboard


def drawn(dashboard):
    drawing = io.StringIO()
    Console(file=drawing, width=150, force_terminal=False).print(view.render(dashboard))
    return drawing.getvalue()


def test_an_empty_board_is_drawn():
    dashboard = Dashboard("the loop")
    dashboard.step("supervised fine-tuning")
    assert "· supervised fine-tuning" in drawn(dashboard)
    assert view.plain_line(dashboard).startswith("[")


def test_everything_is_drawn(dashboard):
    text = drawn(dashboard)
    for part in ("▶ live: people chat", "policy-000001", "+1.000 ± 0.000", "is fig a fruit ?", "sure yes", "+0.48",
                 "123 (0 failed)", "p50 21 s", "▁▄█", "0.61"):  # fmt: skip
        assert part in text


def test_the_plain_line(dashboard):
    line = view.plain_line(dashboard)
    assert "live: people chat 50%" in line
    assert "policy-000002: true reward +1.00 (n=30)" in line
    assert "123 requests, 0 failed" in line
    assert "2 swaps" in line


def test_bars_and_sparklines():
    assert view.bar(-1.0, low=-1, high=1, width=4) == "░░░░"
    assert view.bar(0.0, low=-1, high=1, width=4) == "██░░"
    assert view.bar(7.0, low=-1, high=1, width=4) == "████"
    assert view.sparkline([1.0, 1.0]) == "▁▁"
    assert view.sparkline([0.0, 0.5, 1.0])[::2] == "▁█"


async def test_lines_go_where_there_is_no_terminal(dashboard, monkeypatch):
    monkeypatch.setattr(view, "PLAIN_EVERY_S", 0.001)
    out, stop = io.StringIO(), asyncio.Event()
    showing = asyncio.create_task(view.show(dashboard, stop, plain=False, out=out))
    while "live: people chat" not in out.getvalue():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    stop.set()
    await showing
    assert "\x1b[" not in out.getvalue(), "plain lines, no drawing"
