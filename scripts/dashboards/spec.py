"""What a dashboard says, as plain values: rows of panels, each with its queries and what a person needs to judge it.

Queries are PromQL as Grafana takes it. Every selector is written with braces, `rlhf_swaps_total{}`, into which the
matchers of the dashboard's variables are put (`grafana.scoped`): a panel can't forget the namespace or the release.
`COUNTED` is the window of rates; Grafana chooses it no shorter than four scrapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

COUNTED = "[$__rate_interval]"

Kind = Literal["stat", "lines", "bars", "table", "timeline"]
Needs = Literal["", "a GPU", "Kafka", "vLLM", "a canary", "people's verdict on several versions"]
Color = Literal["green", "yellow", "red", "blue", "text"]
Variable = Literal["service", "version"]

SLOW = {"median": 0.5, "90 %": 0.9, "99 %": 0.99}
SPREAD = {"10 %": 0.1, "median": 0.5, "90 %": 0.9}


@dataclass(frozen=True, slots=True)
class Limits:
    """Colours by value, ascending: `base` up to the first of `steps`, then each step's colour from its value on."""

    base: Color = "text"
    steps: tuple[tuple[float, Color], ...] = ()


def below(yellow: float, red: float) -> Limits:
    """Good is below `yellow`; from `red` on somebody has to do something."""
    return Limits("green", ((yellow, "yellow"), (red, "red")))


def above(yellow: float, green: float) -> Limits:
    """Good is from `green` on; below `yellow` somebody has to do something."""
    return Limits("red", ((yellow, "yellow"), (green, "green")))


NONE_IS_GOOD = Limits("green", ((1e-9, "red"),))
ONE_IS_GOOD = Limits("red", ((1, "green"),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture: what it shows, what is good, what to do if it is not.

    `queries` maps a legend, with `{{label}}` for a label's value, to PromQL. `unit` is Grafana's name of the unit.
    `runbooks` names pages of docs/runbooks. `needs` is what the panel is empty without, and says so in its place.
    `legend_only` shows the legend instead of the value: where what is told is a label, as a version's name is.
    """

    title: str
    what: str
    good: str
    do: str
    queries: Mapping[str, str]
    unit: str
    kind: Kind = "lines"
    limits: Limits = Limits()
    width: int = 8
    least: float | None = 0
    most: float | None = None
    stacked: bool = False
    log: bool = False
    legend_only: bool = False
    names: Mapping[float, tuple[str, Color]] | None = None
    runbooks: tuple[str, ...] = ()
    needs: Needs = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading that asks one question. Their widths fill lines of 24."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """One of the six. `variables` are those it selects by, besides datasource, namespace and release."""

    uid: str
    title: str
    what: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()


def quantiles(metric: str, matchers: str = "", at: Mapping[str, float] = SLOW) -> dict[str, str]:
    """Quantiles of a classic histogram, `at` by their legends: the median, 90 % and 99 % if not said."""
    rate = f"sum by (le) (rate({metric}_bucket{{{matchers}}}{COUNTED}))"
    return {legend: f"histogram_quantile({quantile}, {rate})" for legend, quantile in at.items()}
