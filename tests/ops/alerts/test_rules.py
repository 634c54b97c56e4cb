"""The alert rules as files: promtool takes them, and tries each with made-up series (`rules/`).

Each fires there, resolves, and stays silent on a near miss; that none was forgotten, and that no name in these files is
misspelt, which promtool would pass over, is asked here.
"""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.ops_tools import tool

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "helm" / "rlhf-online" / "files" / "alerts"
CASES = Path(__file__).parent / "rules"
FILES = sorted(path.name for path in RULES.glob("*.yaml"))


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
