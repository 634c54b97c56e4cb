"""Every test and page that the register of limits names is there, and no row claims more than it shows."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = [line for line in (ROOT / "docs" / "limits.md").read_text().splitlines() if re.match(r"\| \d+ ", line)]
DOES = {"measures", "bounds", "helps", "nothing"}


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def test_the_rows_are_numbered_through() -> None:
    assert [int(cells(row)[0]) for row in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) == 32


@pytest.mark.parametrize("row", ROWS, ids=lambda row: cells(row)[0])
def test_a_row_says_what_is_done_and_names_what_shows_it(row: str) -> None:
    _, problem, kind, does, how, shown = cells(row)
    assert problem and how
    assert kind in ("T", "F", "")
    assert does in DOES
    named = re.findall(r"`([^`]+)`", shown)
    assert named or does == "nothing", "what no test and no page shows is a hope"
    for each in named:
        path, _, test = each.partition("::")
        assert (ROOT / path).is_file(), each
        assert not test or f"def {test}(" in (ROOT / path).read_text(), each
