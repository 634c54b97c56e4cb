"""The runner says of each row what its tests showed, and no more."""

from typing import Any

import pytest

from tests.faults.run import Outcomes, add, table

TESTS = """
import pytest
from tests.faults.auditor import audit

@pytest.mark.parametrize("number", [1, 2])
def test_good(number): ...

def test_bad(): assert False

def test_skipped(): pytest.skip("no broker")

def test_audited(tmp_path):
    audit(tmp_path, ["in the meantime", "two are away"])
    audit(tmp_path, ["one"])
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    file = tmp_path_factory.mktemp("rows") / "test_rows.py"
    file.write_text(TESTS)
    file.with_name("pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    outcomes = Outcomes()
    outcomes.run([str(file)])
    return outcomes


def test_a_row_counts_the_tests_that_ran_and_what_was_counted_in_their_end(outcomes: Outcomes) -> None:
    good = {"passed": True, "runs": 2, "lost": 0, "trained_twice": 0, "audited": False}
    assert outcomes.row(["test_rows.py::test_good"]) == good
    bad = {"passed": False, "runs": 3, "lost": None, "trained_twice": None, "audited": False}
    assert outcomes.row(["test_rows.py::test_good", "test_rows.py::test_bad"]) == bad
    audited = {"passed": True, "runs": 1, "lost": 1, "trained_twice": 0, "audited": True}
    assert outcomes.row(["test_rows.py::test_audited"]) == audited


@pytest.mark.parametrize("missing", ["test_skipped", "test_goo", "test_that_is_not_there"])
def test_a_row_whose_test_did_not_run_has_not_passed(outcomes: Outcomes, missing: str) -> None:
    assert not outcomes.row(["test_rows.py::test_good", f"test_rows.py::{missing}"])["passed"]


def test_the_kill_run_counts_with_the_trainers_row() -> None:
    def rows() -> dict[int, dict[str, Any]]:
        return {25: {"passed": True, "runs": 2, "lost": None, "trained_twice": None}}

    figures = {"kills": {"trainer": 30, "chat": 5}, "lost": 0, "trained_twice": 0, "problems": []}
    add(known := rows(), figures)
    assert known[25] == {"passed": True, "runs": 32, "lost": 0, "trained_twice": 0}
    assert table(known).splitlines()[1].split() == ["25", "yes", "32", "0", "0"]
    add(known := rows(), figures | {"lost": 3, "problems": ["3 acknowledged events are lost"]})
    assert table(known).splitlines()[1].split() == ["25", "NO", "32", "3", "0"]
    add(known := rows(), {"problems": ["it ended with code 1"]})
    assert table(known).splitlines()[1].split() == ["25", "NO", "2", "-", "-"]
