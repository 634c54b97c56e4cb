"""The dashboards' files: as their generator makes them, as Grafana's schema has it, with queries of what is emitted."""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard, DashboardLink

from scripts.dashboards.__main__ import stale
from tests.support.dashboards import every_query, files, panels, queries, read
from tests.support.prometheus import Prometheus

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
