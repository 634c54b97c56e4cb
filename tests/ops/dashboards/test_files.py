"""The dashboards' files: as their generator makes them, as Grafana's schema has it, with queries of what is emitted."""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
import typer
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard, DashboardLink
from pydantic import BaseModel

from rlhf_online.cli.app import app
from scripts.dashboards.__main__ import stale
from scripts.dashboards.grafana import scoped
from services.standalone.settings import StandaloneSettings
from tests.support.dashboards import Query, every_query, files, panels, queries, read
from tests.support.emitted import emitted
from tests.support.prometheus import Prometheus

ROOT = Path(__file__).resolve().parents[3]
TARGET_LABELS = {"namespace", "release", "job", "pod"}
"""What Prometheus sets on every series of a target (docs/dashboards.md)."""
WORDS = {"by", "offset", "unless", "scalar", "sum", "max", "min", "count", "rate", "increase", "round", "time"} | {
    "histogram_quantile", "sort_desc",
}  # fmt: skip
OF_ANNOTATIONS = {"step", "titleFormat", "textFormat", "tagKeys"}
"""Fields that only Grafana's Prometheus plugin reads; its schema lacks them."""


def test_the_files_are_as_the_generator_makes_them() -> None:
    assert stale() == [], "run `python -m scripts.dashboards`"


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_grafanas_schema_knows_every_field_and_its_type(path: Path) -> None:
    plugins.register_default_plugins()
    written = read(path)
    for annotation in written["annotations"]["list"]:
        for name in OF_ANNOTATIONS:
            del annotation[name]
    opened = Dashboard.from_json(written)
    assert JSONEncoder(sort_keys=True).encode(opened) == JSONEncoder(sort_keys=True).encode(written)
    assert list(mistyped(opened, "dashboard")) == []


def mistyped(value: Any, at: str) -> Iterator[str]:
    """Attributes of the schema's objects that are not of their declared type."""
    for name, hint in get_type_hints(type(value)).items():
        held = getattr(value, name)
        if not fits(held, hint):
            yield f"{at}.{name} is {held!r}, and should be {hint}"
        for number, item in enumerate(held if isinstance(held, list) else [held]):
            if hasattr(item, "to_json"):
                yield from mistyped(item, f"{at}.{name}[{number}]")


def fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return True
    if origin is Union:
        return any(fits(value, one) for one in inner)
    if origin is list:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, inner[1]) for item in value.values())
    if inner:  # a literal
        return value in inner
    if issubclass(hint, Enum):  # read from JSON, it stays the value
        return value in {one.value for one in hint}
    if hint is DashboardLink and isinstance(value, dict):  # a panel's stay as they were read
        return DashboardLink.from_json(value).to_json() == value
    return isinstance(value, (int, float) if hint is float else hint)


def test_a_value_of_another_type_is_noticed() -> None:
    assert list(mistyped(Dashboard(title="a", refresh="30s"), "dashboard")) == []
    wrong: Any = 30
    assert [text.split(",")[0] for text in mistyped(Dashboard(refresh=wrong), "dashboard")] == [
        "dashboard.refresh is 30"
    ]


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_every_panel_says_what_is_good_and_what_to_do_and_lies_beside_the_others(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    shown = list(panels(read(path)))
    assert len({panel["id"] for panel in shown}) == len(shown)
    for panel in shown:
        assert re.fullmatch(r"\S.+\n\n\*\*Good:\*\* .+\n\n\*\*If not:\*\* .+", panel["description"], re.DOTALL)
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        left, top, width, height = (panel["gridPos"][name] for name in "xywh")
        mine = {(x, y) for x in range(left, left + width) for y in range(top, top + height)}
        assert not mine & taken, panel["title"]
        assert max(x for x, _ in mine) < 24, panel["title"]
        taken |= mine


def test_panels_link_to_runbooks_that_there_are() -> None:
    links = {link["url"] for path in files() for panel in panels(read(path)) for link in panel["links"]}
    assert links and [link for link in sorted(links) if not (ROOT / link).is_file()] == []


def test_descriptions_name_settings_and_commands_that_there_are() -> None:
    said = " ".join(panel["description"] for path in files() for panel in panels(read(path)))
    named = set(re.findall(r"`([^`]+)`", said))
    settings = {name for name in named if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", name)}
    assert settings and settings <= set(fields(StandaloneSettings))
    commands = {name.removeprefix("rlhf-online ") for name in named if name.startswith("rlhf-online ")}
    assert commands
    for command in commands:
        found: Any = typer.main.get_command(app)
        for word in re.findall(r"(?<!\S)[a-z][a-z-]*", command):
            found = found.commands[word]


def fields(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Every setting by its full name, `trainer.gate.kl.max`."""
    for name, field in model.model_fields.items():
        yield before + name
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from fields(inner, f"{before}{name}.")


def test_a_variable_is_used_where_it_is_offered_and_offered_where_it_is_used() -> None:
    for path in files():
        dashboard = read(path)
        offered = {variable["name"] for variable in dashboard["templating"]["list"]} - {"datasource"}
        used = {name for query in queries(dashboard) for name in re.findall(r"\$(\w+)", query.promql)}
        assert {name for name in used if not name.startswith("__")} == offered, path.name
        assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels(dashboard))


def test_every_query_is_promql(tmp_path: Path) -> None:
    server = Prometheus(tmp_path)
    try:
        for query in every_query():
            assert server.instant(query.filled("1m", "1h")) == [], query.name
    finally:
        server.stop()


def test_queries_name_what_is_emitted() -> None:
    assert [problem for query in every_query() for problem in unknown(query)] == []


def unknown(query: Query) -> Iterator[str]:
    """Metrics of the query that no service emits, and labels that these metrics do not have."""
    known = emitted()
    selectors = re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", query.promql)
    rest = re.sub(r"\{[^}]*\}|\[[^]]*\]|\bby \([^)]*\)|\"[^\"]*\"|\d+[smh]\b", "", query.promql)
    names = {name for name, _ in selectors}
    for word in set(re.findall(r"[a-zA-Z_:][\w:]*", rest)) - names - WORDS:
        yield f"{query.name}: {word} is no selector with braces"
    for name in names - set(known):
        yield f"{query.name}: {name} is not emitted"
    labels = TARGET_LABELS.union(*(known.get(name, set()) for name in names))
    grouped = {
        label for inside in re.findall(r"\bby \(([^)]*)\)", query.promql) for label in re.findall(r"\w+", inside)
    }
    matched = {label for _, inside in selectors for label in re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", inside)}
    for label in (grouped | matched) - labels:
        yield f"{query.name}: no metric of it has a label {label}"
    for label in set(re.findall(r"\{\{(\w+)\}\}", query.legend)) - grouped:
        yield f"{query.name}: {label} of the legend is no label of the result"


@pytest.mark.parametrize(
    ("promql", "legend", "problem"),
    [
        ("sum(rate(rlhf_swaps{}[1m]))", "", "rlhf_swaps is not emitted"),
        ("sum by (version) (rlhf_swaps_total{})", "", "no metric of it has a label version"),
        ('sum(rlhf_swaps_total{verdict="ok"})', "", "no metric of it has a label verdict"),
        ("sum(rlhf_swaps_total)", "", "rlhf_swaps_total is no selector with braces"),
        ("sum(rlhf_swaps_total{})", "{{outcome}}", "outcome of the legend is no label of the result"),
    ],
)
def test_a_query_of_what_is_not_there_is_noticed(promql: str, legend: str, problem: str) -> None:
    query = Query(dashboard="d", panel="p", ref="A", promql=promql, legend=legend, instant=False, needs="")
    assert list(unknown(query)) == [f"d · p · A: {problem}"]


def test_the_scope_is_put_into_every_selector() -> None:
    scope = 'namespace=~"$namespace", release=~"$release"'
    assert scoped('rate(a{}[1m]) / b:c{x="y"}') == f'rate(a{{{scope}}}[1m]) / b:c{{{scope}, x="y"}}'
    assert all(query.promql.count(scope) == query.promql.count("{") for query in every_query())
