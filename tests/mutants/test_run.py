"""The runner on a module of six lines: what is killed, what survives, what is known to be no change at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import run
from tests.mutants.operators import Mutant, mutants
from tests.mutants.run import Ran, Result, Runner

MODULE = "rlhf_online/gate/toy.py"
SOURCE = """def largest(values):
    best = values[0]
    for value in values:
        if value > best:
            best = value
    return best
"""
TESTS = """from rlhf_online.gate.toy import largest


def test_it():
    assert largest([1, 3, 2]) == 3
"""
TURNED = f"{MODULE}::largest::comparison::value > best → (value < best)"
EQUAL = f"{MODULE}::largest::boundary::value > best → (value >= best)"
FIRST = f"{MODULE}::largest::constant::0 → 1"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in {
        "rlhf_online/__init__.py": "",
        "rlhf_online/gate/__init__.py": "",
        MODULE: SOURCE,
        "tests/gate/test_toy.py": TESTS,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The toy's test in this process, for what does not depend on pytest; the sources that it ran on."""
    ran: list[str] = []

    def test(copy: Path, name: str, *options: str, running: object) -> Ran:
        if options:
            return Ran(0, "1 deselected")
        names: dict[str, Any] = {}
        ran.append((copy / MODULE).read_text())
        exec(ran[-1], names)
        exec((copy / name.partition("::")[0]).read_text().partition("\n")[2], names)
        try:
            names["test_it"]()
        except (AssertionError, IndexError):
            return Ran(1, f"ERROR    kafka: a line of a log\nFAILED {name.partition('::')[0]}::test_it - as it said")
        return Ran(0, "1 passed")

    monkeypatch.setattr(run, "_pytest", test)
    return ran


def _run(
    tree: Path,
    *keys: str,
    known: Mapping[str, Result] | None = None,
    jobs: int = 1,
    equivalent: Mapping[str, str] | None = None,
) -> dict[str, Result]:
    chosen = [mutant for mutant in mutants(MODULE, SOURCE) if mutant.key in keys]
    assert len(chosen) == len(keys)
    kept: list[int] = []
    runner = Runner(tree, jobs, equivalent=equivalent or {}, say=lambda line: None)
    found = runner.run(chosen, known or {}, lambda so_far: kept.append(len(so_far)))
    assert kept[-1] == len(keys) and (tree / MODULE).read_text() == SOURCE, "the tree is never changed"
    return found


def test_a_mutant_is_killed_by_a_test_and_one_that_nobody_notices_survives(tree: Path):
    found = _run(tree, TURNED, FIRST, jobs=2)
    assert found[TURNED].outcome == "killed" and found[TURNED].by == "tests/gate/test_toy.py::test_it"
    assert found[FIRST].outcome == "survived", "no test has a single value"
    assert run.caught(found) == 0.5
    assert f"survived, line 2: {FIRST}" in run.table(found)


@pytest.mark.parametrize(
    ("output", "failed"),
    [
        ("ERROR    kafka: a line of a log\nFAILED tests/a.py::test_b - AssertionError: a - b\n", "tests/a.py::test_b"),
        ("FAILED tests/a.py::test_b[some words]\n", "tests/a.py::test_b[some words]"),
        ("ERROR tests/a.py - NameError: x\n", "tests/a.py"),
        ("Segmentation fault\n", ""),
    ],
)
def test_what_failed_first_is_read_of_the_summary(output: str, failed: str):
    assert Ran(1, output).failed == failed


def test_an_endless_loop_times_out(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "TEST_S", 1)
    endless = Mutant(
        module=MODULE, function="largest", operator="drop", before="best = values[0]", after="while True: pass",
        start=SOURCE.index("best = values[0]"), line=2,
    )  # fmt: skip
    found = Runner(tree, say=lambda line: None).run([endless], {}, lambda so_far: None)
    assert found[endless.key].outcome == "timed out" and run.caught(found) == 1.0


def test_what_is_listed_as_equivalent_is_not_run_and_counts_for_nothing(tree: Path, quick: list[str]):
    found = _run(tree, TURNED, EQUAL, equivalent={EQUAL: "the best of equals is equal"})
    assert found[EQUAL].outcome == "equivalent" and found[EQUAL].reason == "the best of equals is equal"
    assert found[TURNED].outcome == "killed" and run.caught(found) == 1.0
    assert quick == [SOURCE.replace("value > best", "(value < best)"), SOURCE], "what failed passes without it"


def test_a_test_that_fails_without_a_mutant_says_nothing_of_one(tree: Path, quick: list[str]):
    """It is left out, named, and what the others say counts."""
    (tree / "tests/gate/test_toy.py").write_text(TESTS.replace("== 3", "== 4"))
    runner = Runner(tree, say=lambda line: None)
    [mutant] = [mutant for mutant in mutants(MODULE, SOURCE) if mutant.key == TURNED]
    found = runner.run([mutant], {}, lambda so_far: None)
    assert found[TURNED].outcome == "survived" and runner.unsound == {"tests/gate/test_toy.py::test_it"}
    assert quick == [mutant.applied(SOURCE), SOURCE]


def test_a_run_goes_on_where_an_earlier_one_ended(tree: Path, quick: list[str]):
    known = _run(tree, TURNED, FIRST)
    quick.clear()
    assert _run(tree, TURNED, FIRST, known=known) == known and quick == []
    (tree / "tests/gate/test_toy.py").write_text(TESTS.replace("[1, 3, 2]", "[3]"))
    again = _run(tree, TURNED, FIRST, known=known)
    assert again[FIRST].outcome == "killed", "its tests have changed"
    assert again[TURNED] == known[TURNED], "a test was enough to kill it"


def test_a_reason_for_a_mutant_that_is_gone_is_refused(tmp_path: Path):
    path = tmp_path / "equivalent.toml"
    path.write_text(f"[[equivalent]]\nreason = 'equal'\nkeys = [{json.dumps(EQUAL)}]\n", encoding="utf-8")
    every = mutants(MODULE, SOURCE)
    assert run.read_equivalent(path, every) == {EQUAL: "equal"}
    with pytest.raises(SystemExit, match=r"names a mutant that there is not: .*value > best"):
        run.read_equivalent(path, [mutant for mutant in every if mutant.key != EQUAL])
