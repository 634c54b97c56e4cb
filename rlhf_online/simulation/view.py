"""The demo's display: a live terminal view, or one plain line every few seconds.

Both draw a `Dashboard`, which the demo fills; nothing here changes anything. Curves are drawn from the answers that
people got (training prompts); the held-out measurements stand beside them.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlhf_online.simulation.traffic import Measurement, Records

BARS = "▁▂▃▄▅▆▇█"
PLAIN_EVERY_S = 5.0


@dataclass(slots=True)
class Step:
    """One of the demo's steps, as a progress bar; `note` is shown beside it."""

    title: str
    done: float = 0.0
    total: float = 1.0
    note: str = ""
    started: float = 0.0
    ended: float = 0.0

    def begin(self) -> None:
        self.started = time.monotonic()

    def end(self, note: str = "") -> None:
        self.done, self.ended = self.total, time.monotonic()
        self.note = note or self.note

    @property
    def state(self) -> str:
        return "waiting" if not self.started else "done" if self.ended else "running"

    @property
    def seconds(self) -> float:
        return ((self.ended or time.monotonic()) - self.started) if self.started else 0.0


@dataclass(slots=True)
class VersionRow:
    """A policy version as the registry has it."""

    version: str
    state: str
    kl: float
    win_rate: float | None = None


@dataclass(slots=True)
class Dashboard:
    """Everything that is shown."""

    title: str
    url: str = ""
    steps: list[Step] = field(default_factory=list)
    records: Records = field(default_factory=Records)
    first: Measurement | None = None
    last: Measurement | None = None
    probe: Measurement | None = None
    """The latest measurement on held-out prompts, one answer each."""
    versions: list[VersionRow] = field(default_factory=list)
    serving: str = ""
    trainer_phase: str = ""
    cycle: int = 0
    reward_accuracy: float | None = None
    trained: int = 0
    swaps: int = 0
    swap_pause_s: float | None = None
    live_p50_s: float | None = None
    chaos: deque[str] = field(default_factory=lambda: deque(maxlen=4))
    started: float = field(default_factory=time.monotonic)

    def step(self, title: str) -> Step:
        """Add a step, not begun."""
        self.steps.append(Step(title))
        return self.steps[-1]


def render(dashboard: Dashboard) -> RenderableType:
    """The whole view."""
    parts: list[RenderableType] = [_steps(dashboard)]
    if dashboard.records.answers or dashboard.versions:
        parts += [_numbers(dashboard), _versions(dashboard)]
    if dashboard.records.latest:
        parts.append(_samples(dashboard))
    if dashboard.chaos:
        parts.append(Text("\n".join(dashboard.chaos), style="bold red"))
    clock = time.strftime("%M:%S", time.gmtime(time.monotonic() - dashboard.started))
    return Panel(
        Group(*parts), title=f"{dashboard.title} · {clock}", subtitle=dashboard.url or None, border_style="blue"
    )


def _steps(dashboard: Dashboard) -> Table:
    table = Table.grid(padding=(0, 1))
    for step in dashboard.steps:
        mark = {"waiting": "·", "running": "▶", "done": "✓"}[step.state]
        style = {"waiting": "dim", "running": "bold", "done": "green"}[step.state]
        bar = ProgressBar(total=step.total, completed=step.done, width=28)
        table.add_row(Text(f"{mark} {step.title}", style=style), bar, Text(f"{step.seconds:4.0f} s"), step.note)
    return table


def _numbers(dashboard: Dashboard) -> Table:
    records, traffic = dashboard.records, dashboard.records.traffic
    table = Table.grid(padding=(0, 3))
    held_out = " → ".join(f"{m.mean:+.2f}" for m in (dashboard.first, dashboard.probe, dashboard.last) if m is not None)
    table.add_row(
        _pair("held-out true reward", held_out or "…"),
        _pair("requests", f"{traffic.requests} ({traffic.failed_requests} failed)"),
        _pair("votes", f"{records.rankings} rankings, {records.thumbs} thumbs, {dashboard.trained} learned"),
    )
    accuracy = f"{dashboard.reward_accuracy:.2f}" if dashboard.reward_accuracy is not None else "…"
    pause = f"{dashboard.swap_pause_s * 1000:.0f} ms" if dashboard.swap_pause_s is not None else "…"
    latency = f"{dashboard.live_p50_s:.0f} s" if dashboard.live_p50_s is not None else "…"
    table.add_row(
        _pair("trainer", f"cycle {dashboard.cycle}, {dashboard.trainer_phase or '…'}; reward model right {accuracy}"),
        _pair("swaps", f"{dashboard.swaps}, pause {pause}"),
        _pair("click → live", f"p50 {latency}"),
    )
    return table


def _pair(name: str, value: str) -> Text:
    return Text.assemble((f"{name} ", "dim"), (value, "bold"))


def _versions(dashboard: Dashboard, rows: int = 8) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("version", "state", "true reward (its own answers)", "n", "KL", "wins"):
        table.add_column(heading)
    for row in dashboard.versions[-rows:]:
        rewards = dashboard.records.by_version.get(row.version)
        style = {"live": "bold green", "rejected": "yellow", "failed": "red"}.get(row.state, "")
        table.add_row(
            row.version,
            row.state,
            f"{bar(rewards.mean)} {rewards.mean:+.3f} ± {rewards.stderr:.3f}" if rewards else "",
            str(rewards.n) if rewards else "",
            f"{row.kl:.2f}",
            f"{row.win_rate:.2f}" if row.win_rate is not None else "",
            style=style,
        )
    means = [
        dashboard.records.by_version[row.version].mean for row in dashboard.versions if _has(dashboard, row.version)
    ]
    table.caption = f"true reward by version  {sparkline(means)}" if len(means) > 1 else None
    return table


def _has(dashboard: Dashboard, version: str) -> bool:
    return version in dashboard.records.by_version and dashboard.records.by_version[version].n >= 20


def _samples(dashboard: Dashboard) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("someone asks", "the model answers", "true reward", "by"):
        table.add_column(heading, no_wrap=True)
    for sample in dashboard.records.latest:
        style = "green" if sample.reward >= 0.9 else "red" if sample.reward < 0 else ""
        table.add_row(sample.prompt, Text(sample.answer[:60], style=style), f"{sample.reward:+.2f}", sample.version)
    return table


def bar(value: float, low: float = -1.0, high: float = 1.2, width: int = 16) -> str:
    """A horizontal bar of `width` characters."""
    filled = round(width * min(1.0, max(0.0, (value - low) / (high - low))))
    return "█" * filled + "░" * (width - filled)


def sparkline(values: Sequence[float]) -> str:
    """One character a value, from the smallest to the largest."""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)


def plain_line(dashboard: Dashboard) -> str:
    """The dashboard in one line, for a log."""
    seconds = time.monotonic() - dashboard.started
    running = [step for step in dashboard.steps if step.state == "running"]
    steps = ", ".join(f"{step.title} {100 * step.done / step.total:.0f}% {step.note}".strip() for step in running)
    parts = [f"[{seconds:5.0f} s] {steps}"]
    if (records := dashboard.records).answers:
        rewards = records.by_version.get(dashboard.serving)
        parts.append(
            f"{dashboard.serving}: true reward {rewards.mean:+.2f} (n={rewards.n})" if rewards else dashboard.serving
        )
        parts.append(f"{records.rankings + records.thumbs} votes, {dashboard.trained} learned, {dashboard.swaps} swaps")
        parts.append(f"{records.traffic.requests} requests, {records.traffic.failed_requests} failed")
        if dashboard.versions:
            parts.append(f"KL {dashboard.versions[-1].kl:.2f}")
        if dashboard.live_p50_s is not None:
            parts.append(f"click to live {dashboard.live_p50_s:.0f} s")
    return " · ".join(parts)


async def show(dashboard: Dashboard, stop: asyncio.Event, *, plain: bool, out: TextIO = sys.stdout) -> None:
    """Draw the dashboard until `stop` is set: live on a terminal, line by line elsewhere or if `plain`."""
    if plain or not out.isatty():
        while not await _set_within(stop, PLAIN_EVERY_S):
            print(plain_line(dashboard), file=out, flush=True)
        return
    console = Console(file=out)
    with Live(render(dashboard), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while not await _set_within(stop, 0.5):
            live.update(render(dashboard), refresh=True)
        live.update(render(dashboard), refresh=True)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
