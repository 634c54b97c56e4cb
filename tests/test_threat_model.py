"""Every test that the threat model names is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = [line for line in (ROOT / "docs" / "threat-model.md").read_text().splitlines() if line.startswith("| ")][2:]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip() + ": " + row.split("|")[2].strip())
def test_each_row_names_who_what_the_guard_and_tests_that_are_there(row: str) -> None:
    who, wants, guard, tests = (cell.strip() for cell in row.strip("|").split("|"))
    assert who and wants and guard
    named = re.findall(r"`([^`]+)`", tests)
    assert named, "a guard that no test shows is a hope"
    for each in named:
        path, _, test = each.partition("::")
        source = (ROOT / path).read_text()
        found = {
            node.name
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert any(name.startswith("test_") for name in found), path
        assert not test or test in found, each


def test_there_are_rows() -> None:
    assert len(ROWS) > 15
