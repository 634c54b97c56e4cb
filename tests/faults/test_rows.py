"""The table names tests that are there."""

import ast
from pathlib import Path

import pytest

from tests.faults.rows import ROWS

ROOT = Path(__file__).resolve().parents[2]
NAMED = sorted({test for tests in ROWS.values() for test in tests})


@pytest.mark.parametrize("named", NAMED)
def test_a_named_test_is_there(named: str) -> None:
    file, _, function = named.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_no_row_is_without_a_test() -> None:
    assert all(ROWS.values())
