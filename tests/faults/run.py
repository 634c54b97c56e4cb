"""Every row of FAULTS as tests, then a kill run: a table for people, and `build/faults.json`.

    python -m tests.faults.run [--kills 25] [--seed S] [--minutes 85] [--json build/faults.json]

    {"seed": 7, "rows": {"25": {"passed": true, "runs": 12, "lost": 0, "trained_twice": 0, "audited": true}, …},
     "kills": {…}}

`runs` are the tests that ran for a row, and kills where every kill of that kind is one more. `lost` and `trained_twice`
are what the auditor counted in the end of the row's tests; where none asks it (`audited`), they look themselves, and
it is 0 if they passed, null if not.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.faults import auditor
from tests.faults.auditor import Report
from tests.faults.rows import ROWS

ROOT = Path(__file__).resolve().parents[2]
TRAINER_KILLED = 25
"""The row that says "trainer KILLed anywhere"; what the other kills strike is not known one by one."""


@dataclass(slots=True, eq=False)
class Outcomes:
    """What became of tests by pytest's ids; a plugin of pytest. `audits` are the last books that each test drew up."""

    passed: dict[str, bool] = field(default_factory=dict)
    audits: dict[str, Report] = field(default_factory=dict)
    _running: str = ""

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running = nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed[report.nodeid] = self.passed.get(report.nodeid, True) and report.passed

    def run(self, named: Sequence[str]) -> None:
        """Run the tests that are named."""
        audit = auditor.audit

        def noted(*args: Any, **kwargs: Any) -> Report:
            report = self.audits[self._running] = audit(*args, **kwargs)
            return report

        with mock.patch.object(auditor, "audit", noted):
            pytest.main([*named, "-p", "no:cacheprovider"], plugins=[self])

    def row(self, named: Sequence[str]) -> dict[str, Any]:
        """What `rows` says of a fault that these tests show."""
        found = {name: [each for each in self.passed if each == name or each.startswith(f"{name}[")] for name in named}
        ids = [each for each_named in found.values() for each in each_named]
        books = [self.audits[each] for each in ids if each in self.audits]
        passed = all(found.values()) and all(self.passed[each] for each in ids)
        unaudited = 0 if passed else None
        return {
            "passed": passed,
            "runs": len(ids),
            "lost": sum(len(report.lost) for report in books) if books else unaudited,
            "trained_twice": sum(report.twice for report in books) if books else unaudited,
            "audited": bool(books),
        }


def kill_run(kills: int, seed: int, minutes: float, *, long: bool) -> dict[str, Any]:
    """The figures of `tests.faults.kills`, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "kills.json"
        command = [sys.executable, "-m", "tests.faults.kills", "--kills", str(kills), "--seed", str(seed)]
        command += ["--long"] if long else []
        code = subprocess.run([*command, "--minutes", str(minutes), "--json", str(figures)], cwd=ROOT).returncode
        return json.loads(figures.read_text()) if figures.exists() else {"problems": [f"it ended with code {code}"]}


def add(rows: Mapping[int, dict[str, Any]], figures: Mapping[str, Any]) -> None:
    """Count the trainer's kills with the row that they show; the run's losses are that row's, too."""
    row, killed = rows[TRAINER_KILLED], figures.get("kills", {}).get("trainer", 0)
    row["passed"] = row["passed"] and not figures["problems"]
    row["runs"] += killed
    for name in ("lost", "trained_twice"):
        if name in figures:
            row[name] = (row[name] or 0) + figures[name]


def table(rows: Mapping[int, Mapping[str, Any]]) -> str:
    """A line a row."""
    lines = [f"{'row':>4}  {'passed':<6}  {'runs':>5}  {'lost':>5}  {'twice':>5}"]
    for number, row in sorted(rows.items()):
        lost, twice = ("-" if row[name] is None else row[name] for name in ("lost", "trained_twice"))
        lines.append(f"{number:>4}  {'yes' if row['passed'] else 'NO':<6}  {row['runs']:>5}  {lost:>5}  {twice:>5}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1 if a row has not passed or the kill run found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=25, help="kills at random points (%(default)s)")
    parser.add_argument("--long", action="store_true", help="kills, stops and full disks until --minutes are over")
    parser.add_argument("--seed", type=int, help="what is killed and when (drawn and printed by default)")
    parser.add_argument("--minutes", type=float, default=85.0, help="no more kills after that (%(default)s)")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "faults.json", help="result (%(default)s)")
    given = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    outcomes = Outcomes()
    outcomes.run(sorted({name for named in ROWS.values() for name in named}))
    rows = {number: outcomes.row(named) for number, named in ROWS.items()}
    figures = kill_run(given.kills, seed, given.minutes, long=given.long)
    add(rows, figures)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"seed": seed, "rows": rows, "kills": figures}, indent=2))
    failed = [f"row {number} has not passed" for number, row in rows.items() if not row["passed"]]
    print(table(rows))
    said = "; ".join([*figures["problems"], *failed]) or "all in order"
    print(f"seed {seed}, {sum(figures.get('kills', {}).values())} kills: {said}; {given.json}")
    return 1 if failed or figures["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
