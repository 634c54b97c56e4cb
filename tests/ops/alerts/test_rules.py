"""The alert rules as files: promtool takes them, and tries each with made-up series (`rules/`).

Each fires there, resolves, and stays silent on a near miss; that none was forgotten, and that no name in these files is
misspelt, which promtool would pass over, is asked here.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from rlhf_online.cli.app import app
from rlhf_online.metrics.catalogue import Entry
from scripts import metrics_docs
from tests.support.ops_tools import tool

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "helm" / "rlhf-online" / "files" / "alerts"
CASES = Path(__file__).parent / "rules"
FILES = sorted(path.name for path in RULES.glob("*.yaml"))
METRICS = {entry.name: entry for entries in metrics_docs.catalogue().values() for entry in entries}
"""All that the services' own registries tell, with the values that labels may have."""
OF_THE_SCRAPE = {"namespace", "release", "job", "pod", "instance"}
"""Labels that Prometheus sets: the first and third only in Kubernetes."""
SELECTOR = re.compile(r"(?<![:\w])([a-z]+_[a-z0-9_]+)(?:\{([^}]*)\}|(?=\[|\s|\)|$))")
MATCHER = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"')


def alerts(name: str) -> list[dict[str, Any]]:
    """The alerts of a file of rules."""
    groups = yaml.safe_load((RULES / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def cases(name: str) -> dict[str, list[dict[str, Any]]]:
    """What promtool's tests of that file ask of each alert, by the test's own name, in the order of time."""
    tests = yaml.safe_load((CASES / name).read_text())["tests"]
    return {test["name"]: test["alert_rule_test"] for test in tests}


def test_promtool_takes_the_rules() -> None:
    files = [str(RULES / name) for name in FILES]
    checked = subprocess.run(
        [tool("promtool"), "check", "rules", "--lint-fatal", *files], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", FILES)
def test_alerts_fire_stay_silent_and_resolve(name: str) -> None:
    tried = subprocess.run([tool("promtool"), "test", "rules", CASES / name], capture_output=True, text=True)
    assert tried.returncode == 0, tried.stdout + tried.stderr


@pytest.mark.parametrize("name", FILES)
def test_no_alert_is_without_a_case_that_fires_and_resolves_and_one_that_stays_silent(name: str) -> None:
    known = {rule["alert"]: [] for rule in alerts(name)}
    for rule in alerts(name):
        known[rule["alert"]].append(rule["labels"])
    tried = cases(name)
    assert {case["alertname"] for asked in tried.values() for case in asked} == set(known), (
        "promtool passes others over"
    )
    for alert, labels in known.items():
        [fires] = [asked for test, asked in tried.items() if test == f"{alert} fires and resolves"]
        fired = [case["exp_alerts"] for case in fires if case["alertname"] == alert]
        assert fired[-1] == [], f"{alert} does not resolve"
        expected = [each["exp_labels"] for found in fired for each in found]
        for given in labels:
            assert any(given.items() <= each.items() for each in expected), f"{alert} {given} does not fire"
        silent = [asked for test, asked in tried.items() if test.startswith(f"{alert} stays silent ")]
        assert silent, f"{alert} has no near miss"
        assert all(case["exp_alerts"] == [] for asked in silent for case in asked)


def fired() -> Iterator[tuple[str, dict[str, str]]]:
    """What tests wait for in a real Prometheus, `found.fires("NAME", label="value")`: each alert, with those labels."""
    for path in Path(__file__).parent.glob("test_fired_by_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fires":
                labels = {str(given.arg): ast.literal_eval(given.value) for given in node.keywords}
                yield ast.literal_eval(node.args[0]), labels


def test_each_alert_is_fired_for_real_by_some_test() -> None:
    """One of several rules for an alert is by labels that no other of them has."""
    known = [(rule["alert"], rule["labels"]) for name in FILES for rule in alerts(name)]
    seen = []
    for alert, asked in fired():
        meant = [
            (name, labels) for name, labels in known if name == alert and asked.items() <= {**asked, **labels}.items()
        ]
        seen += meant if len(meant) == 1 else []
    assert {alert for alert, labels in known if (alert, labels) not in seen} == set()


def selectors(expression: str) -> Iterator[tuple[Entry, dict[str, tuple[str, ...]]]]:
    """The metrics that a query names, with the values that it asks of each label."""
    for name, matchers in SELECTOR.findall(re.sub(r"\b(by|on|ignoring)\s*\([^)]*\)", "", expression)):
        assert name in METRICS, f"{name} is emitted by no service"
        yield METRICS[name], {label: tuple(value.split("|")) for label, _, value in MATCHER.findall(matchers)}


def rules() -> list[Any]:
    """All rules, by their names."""
    found = [
        rule
        for name in FILES
        for group in yaml.safe_load((RULES / name).read_text())["groups"]
        for rule in group["rules"]
    ]
    return [pytest.param(rule, id=rule.get("alert") or rule["record"]) for rule in found]


@pytest.mark.parametrize("rule", rules())
def test_a_rule_asks_for_metrics_and_labels_that_the_services_emit(rule: dict[str, Any]) -> None:
    recorded = re.compile(r"namespace_release_job:\w+:\w+")
    asked = list(selectors(recorded.sub("", rule["expr"])))
    assert asked or recorded.search(rule["expr"])
    for metric, wanted in asked:
        values = {label.name: label.values for label in metric.labels}
        for label, given in wanted.items():
            assert label in values, f"{metric.name} has no label {label}"
            assert not values[label] or {*given} <= {*values[label]}, f"{metric.name} {label} is never {given}"
        counted = re.search(rf"\b(rate|increase)\({metric.name}\b", rule["expr"]) is not None
        assert counted == (metric.type == "counter"), f"{metric.name} is a {metric.type}"
    known = OF_THE_SCRAPE.union(*({label.name for label in metric.labels} for metric, _ in asked))
    for given in re.findall(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)", rule["expr"]):
        assert {label.strip() for label in given.split(",")} <= known


@pytest.mark.parametrize("name", FILES)
def test_the_made_up_series_are_such_as_the_services_emit(name: str) -> None:
    for test in yaml.safe_load((CASES / name).read_text())["tests"]:
        for series in test["input_series"]:
            [(metric, given)] = selectors(series["series"])
            values = {label.name: label.values for label in metric.labels}
            assert {*given} - OF_THE_SCRAPE <= {*values}, series["series"]
            for label, (value,) in given.items():
                assert not values.get(label) or value in values[label], series["series"]


@pytest.mark.parametrize("rule", [param for param in rules() if "alert" in param.values[0]])
def test_an_alert_can_be_routed_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["labels"]["service"] in ("chat", "engine", "reward", "trainer", "store", "storage", "platform")
    assert set(rule["labels"]) == {"severity", "service"} and set(rule["annotations"]) == {"summary", "runbook_url"}
    page = ROOT / rule["annotations"]["runbook_url"]
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
    text = page.read_text()
    assert text.startswith(f"# {rule['alert']}\n")
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["Meaning", "First look", "Causes", "What to do"]


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("Rlhf*.md")}
    assert pages == {rule["alert"] for name in FILES for rule in alerts(name)}


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "runbooks").glob("*.md")), ids=lambda page: page.stem)
def test_a_runbook_names_metrics_and_commands_that_there_are(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"\brlhf_[a-z0-9_]+", text):
        assert name in METRICS or re.sub(r"_(bucket|sum|count)$", "", name) in METRICS, name
    for command in re.findall(r"^rlhf-online (.*)", text, re.MULTILINE) + re.findall(r"`rlhf-online ([^`]*)`", text):
        known: Any = typer.main.get_command(app)
        for word in command.split():
            if not hasattr(known, "commands"):
                break
            assert word in known.commands, command
            known = known.commands[word]
    for linked in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / linked).exists(), linked
