"""The dashboards of the chart as Grafana reads them: panels, their queries, and its variables put in."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "helm" / "rlhf-online" / "files" / "dashboards"
CHOSEN = {"namespace": "chat", "release": "rlhf-online", "service": ".*", "version": ".*"}
"""What Grafana puts in for the variables: one namespace and release, and “All” of the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query of a panel, or of an annotation. `ref` is its letter."""

    dashboard: str
    panel: str
    ref: str
    promql: str
    legend: str
    instant: bool
    needs: str

    @property
    def name(self) -> str:
        return f"{self.dashboard} · {self.panel} · {self.ref}"

    def filled(self, window: str, shown: str, variables: Mapping[str, str] = CHOSEN) -> str:
        """The PromQL with Grafana's variables put in: `window` of rates, `shown` the time that the dashboard shows."""
        values = {"__rate_interval": window, "__range": shown, **variables}
        return re.sub(r"\$(\w+)", lambda found: values[found[1]], self.promql)


def files() -> list[Path]:
    return sorted(FOLDER.glob("*.json"))


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Those that show something, in their order; headings of rows are none."""
    yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def needs(panel: Mapping[str, Any]) -> str:
    """What the panel is empty without: its text where there is no value is "needs …"."""
    return panel["fieldConfig"]["defaults"].get("noValue", "").removeprefix("needs ")


def queries(dashboard: Mapping[str, Any]) -> Iterator[Query]:
    """Every query of every panel, and of every annotation."""
    title = dashboard["title"]
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield Query(
                dashboard=title,
                panel=panel["title"],
                ref=target["refId"],
                promql=target["expr"],
                legend=target["legendFormat"],
                instant=target.get("instant", False),
                needs=needs(panel),
            )
    for annotation in dashboard["annotations"]["list"]:
        yield Query(
            dashboard=title,
            panel=f"annotation “{annotation['name']}”",
            ref="-",
            promql=annotation["expr"],
            legend=annotation["titleFormat"],
            instant=False,
            needs="",
        )


def every_query() -> list[Query]:
    return [query for path in files() for query in queries(read(path))]
