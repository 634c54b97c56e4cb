"""`make dashboards`: runs the demo under a real Prometheus and draws what every panel's queries answer, into docs/.

It is no Grafana: the layout, titles, units, limits and legends are those of the dashboards' JSON, the pictures are
matplotlib's. The times are minutes since the demo began.
"""

import argparse
import io
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from rlhf_online.state import StateDir
from tests.support.dashboards import Query, files, needs, queries, read
from tests.support.ops_tools import tool
from tests.support.prometheus import Prometheus, Series
from tests.support.scraped import targets
from tests.support.waiting import ENGINE_START_S, until

ROOT = Path(__file__).resolve().parents[3]
STEP_S = 5.0
WINDOW = "60s"
UNIT_IN, COLUMN_IN, HEAD_IN = 0.3, 0.7, 0.9
COLUMNS = 24
COLORS = {"green": "#3a9e3f", "yellow": "#c79a00", "red": "#d1293d", "blue": "#3274d9", "text": "#444444"}
LEGENDS = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="make dashboards", description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0, help="length of the demo")
    parser.add_argument("--seed", type=int, default=0, help="seed of the demo")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "dashboards", help="folder of the demo's run")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "dashboards", help="folder of the pictures")
    options = parser.parse_args()
    try:
        tool("prometheus")
        record(options.minutes, options.seed, options.work, options.out)
    except pytest.skip.Exception as missing:
        print(f"error: {missing}", file=sys.stderr)
        return 2
    return 0


def record(minutes: float, seed: int, work: Path, out: Path) -> None:
    """Run the demo in a child, scrape it to its end, and draw the dashboards."""
    given = ["--minutes", str(minutes), "--seed", str(seed), "--out", str(work / "demo"), "--plain"]
    began = time.time()
    demo = subprocess.Popen([sys.executable, "-m", "rlhf_online.simulation.demo", *given], cwd=ROOT)
    server = None
    try:
        state = StateDir(work / "demo" / "state")
        until(lambda: demo.poll() is not None or fresh(state, began), ENGINE_START_S, "the services", poll_s=0.5)
        server = Prometheus(work / f"prometheus-{round(began)}", targets(state))
        began = time.time()
        if demo.wait() != 0:
            raise SystemExit(f"the demo ended with exit code {demo.returncode}: see {state.logs}")
        out.mkdir(parents=True, exist_ok=True)
        ended = last_whole(server, began)
        for path in files():
            draw(read(path), server, began, ended, out / f"{path.stem}.png")
    finally:
        demo.terminate()
        demo.wait()
        if server is not None:
            server.stop()


def last_whole(server: Prometheus, began: float) -> float:
    """The last time at which every target was scraped, seconds since 1970: what numbers of "now" are told of.

    Not the last seconds: a scrape that is under way is written later, with the time at which it began.
    """
    return server.range("sum(up) == count(up)", began, time.time() - STEP_S, STEP_S)[0].points[-1][0]


def fresh(state: StateDir, began: float) -> bool:
    """Whether the services of this run, not of one before, have written their ports."""
    written = [path.stat().st_mtime for path in state.run.glob("*.ready.json")]
    return bool(written) and min(written) >= began and bool(targets(state))


def draw(dashboard: Mapping[str, Any], server: Prometheus, began: float, ended: float, path: Path) -> None:
    """One dashboard as a PNG."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    inches = height * UNIT_IN + HEAD_IN
    figure = Figure(figsize=(COLUMNS * COLUMN_IN, inches))
    figure.text(0.01, 1 - 0.3 / inches, dashboard["title"], fontsize=15, weight="bold", va="top")
    figure.text(
        0.01,
        1 - 0.6 / inches,
        f"{dashboard['description']} · minutes of a run of the demo; blue: a swap",
        fontsize=9,
        va="top",
        color="#555555",
    )
    asked: dict[str, list[Query]] = {}
    for query in queries(dashboard):
        asked.setdefault(query.panel, []).append(query)
    swaps = asked["annotation “Swaps”"][0].filled(WINDOW, WINDOW)
    marks = [series.points[0][0] for series in server.range(swaps, began, ended, STEP_S)]
    for panel in dashboard["panels"]:
        left, top, width, tall = (panel["gridPos"][name] for name in "xywh")
        base = 1 - (HEAD_IN + (top + tall) * UNIT_IN) / inches
        if panel["type"] == "row":
            figure.text(0.01, base + 0.06 / inches, panel["title"], fontsize=11, weight="bold", color="#333333")
            continue
        axes = figure.add_axes(
            (
                (left + 0.9) / COLUMNS,
                base + 0.65 / inches,
                (width - 1.2) / COLUMNS,
                (tall * UNIT_IN - 1.05) / inches,
            )
        )
        axes.set_title(panel["title"], fontsize=8.5, loc="left", color="#222222")
        corner = ((left + 0.15) / COLUMNS, base + 0.04 / inches)
        frame = Rectangle(corner, (width - 0.3) / COLUMNS, (tall * UNIT_IN - 0.08) / inches)
        frame.set(transform=figure.transFigure, facecolor="#fbfbfc", edgecolor="#d8d8dc", linewidth=0.8, zorder=-1)
        figure.add_artist(frame)
        answers = [(query, answer(query, server, began, ended)) for query in asked[panel["title"]]]
        show(axes, panel, answers, began, marks)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=75)
    Image.open(drawn).convert("RGB").quantize(64).save(path, optimize=True)  # a third of the size


def answer(query: Query, server: Prometheus, began: float, ended: float) -> list[Series]:
    promql = query.filled(WINDOW, f"{round(ended - began)}s")
    return server.instant(promql, ended) if query.instant else server.range(promql, began, ended, STEP_S)


def show(
    axes: Axes,
    panel: Mapping[str, Any],
    answers: Sequence[tuple[Query, list[Series]]],
    began: float,
    marks: list[float],
) -> None:
    """A panel's answers, as its kind shows them."""
    lines = [(legend(query, series), series) for query, found in answers for series in found if series.points]
    if not lines:
        axes.axis("off")
        text = f"needs {needs(panel)}" if needs(panel) else "no data"
        axes.text(0.5, 0.5, text, ha="center", va="center", color="#888888", transform=axes.transAxes)
        return
    match panel["type"]:
        case "stat":
            numbers(axes, panel, lines)
        case "table":
            table(axes, panel, lines)
        case "state-timeline":
            timeline(axes, panel, lines, began)
        case _:
            curves(axes, panel, lines, began, marks)


def legend(query: Query, series: Series) -> str:
    text = query.legend
    for name, value in series.labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


def numbers(axes: Axes, panel: Mapping[str, Any], lines: Sequence[tuple[str, Series]]) -> None:
    axes.axis("off")
    names_only = panel["options"].get("textMode") == "name"
    current = [(name, series.points[-1][1]) for name, series in lines]
    for number, (name, value) in enumerate(current):
        told = name if names_only else text(panel, value)
        size = 18 if len(current) < 3 and len(told) < 20 else 9
        at = (0.5, 1 - (number + 0.5) / len(current))
        if name and not names_only and len(current) > 1:
            told = f"{name}: {told}"
        axes.text(
            *at, told, fontsize=size, ha="center", va="center", color=color(panel, value), transform=axes.transAxes
        )


def table(axes: Axes, panel: Mapping[str, Any], lines: Sequence[tuple[str, Series]]) -> None:
    axes.axis("off")
    rows = [[name, text(panel, series.points[-1][1])] for name, series in lines][:8]
    made = axes.table(rows, loc="upper center", edges="horizontal", colWidths=[0.6, 0.3])
    made.auto_set_font_size(False)
    made.set_fontsize(8)


def timeline(axes: Axes, panel: Mapping[str, Any], lines: Sequence[tuple[str, Series]], began: float) -> None:
    for row, (name, series) in enumerate(lines):
        for at, value in series.points:
            axes.barh(row, STEP_S / 60, left=(at - began) / 60, color=color(panel, value), height=0.8)
        axes.text(0.005, row, name, fontsize=7.5, va="center", color="white", transform=axes.get_yaxis_transform())
    axes.set_yticks([])
    axes.tick_params(labelsize=7)


def curves(
    axes: Axes, panel: Mapping[str, Any], lines: Sequence[tuple[str, Series]], began: float, marks: Sequence[float]
) -> None:
    for at in marks:
        axes.axvline((at - began) / 60, color=COLORS["blue"], linewidth=0.5, alpha=0.35)
    drawn = panel["fieldConfig"]["defaults"]
    custom = drawn["custom"]
    below: dict[float, float] = {}
    """What is stacked so far at each point in time."""
    for name, series in lines:
        stacked = custom.get("stacking", {}).get("mode") == "normal"
        points = [(at, value + below.get(at, 0.0) if stacked else value) for at, value in series.points]
        minutes, values = [(at - began) / 60 for at, _ in points], [value for _, value in points]
        if stacked:
            axes.fill_between(minutes, [below.get(at, 0.0) for at, _ in points], values, alpha=0.25)
            below |= dict(points)
        axes.plot(minutes, values, "-" if len(values) > 3 else ".-", label=name, linewidth=1.2)
    if custom.get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
    low, high = axes.get_ylim()
    for step in drawn["thresholds"]["steps"][1:]:
        if low <= step["value"] <= high:
            axes.axhline(step["value"], color=COLORS[step["color"]], linewidth=0.8, linestyle="--")
    if drawn.get("min") == 0 and low > 0 and axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: text(panel, value))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    shown = axes.get_legend_handles_labels()
    axes.legend(
        *(part[:LEGENDS] for part in shown), fontsize=6.5, loc="upper center", ncols=5, frameon=False,
        bbox_to_anchor=(0.5, -0.1), handlelength=1, columnspacing=0.8,
    )  # fmt: skip


def color(panel: Mapping[str, Any], value: float) -> str:
    name = "text"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            name = step["color"]
    return COLORS[name]


def text(panel: Mapping[str, Any], value: float) -> str:
    """The value in the panel's unit, or by its name."""
    defaults = panel["fieldConfig"]["defaults"]
    for mapping in defaults.get("mappings") or []:
        if (named := mapping["options"].get(f"{value:g}")) is not None:
            return named["text"]
    match defaults["unit"]:
        case "percentunit":
            return f"{100 * value:.3g} %"
        case "s":
            return f"{1000 * value:.3g} ms" if 0 < abs(value) < 1 else f"{value:.3g} s"
        case "bytes":
            return f"{value / 2**20:.4g} MiB"
        case "reqps" | "ops":
            return f"{value:.3g}/s"
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
