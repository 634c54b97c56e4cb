"""`make mutants`: small wrong changes of the product, one at a time, and whether the nearest tests notice.

    python -m tests.mutants.run [--count 200] [--seed 14] [--rooms algorithms gate] [--jobs 2] [--fresh]

    {"seed": 14, "count": 200, "caught": 0.97,
     "mutants": {"rlhf_online/gate/kl.py::KlCheck.examine::boundary::kl <= self.max → (kl < self.max)":
                 {"room": "gate", "line": 14, "outcome": "killed", "by": "tests/gate/test_verdict.py::…", …}}}

Each mutant is written into a copy of what git tracks, as it stands in the working tree, which is never changed itself.
A mutant is *killed* when a test fails that passes without it; it has *timed out* when a test took far longer than any
should, twice, since a busy machine does that once; and else it *survived*: there is a hole in the tests, or the mutant
is no change at all. The latter stand in `equivalent.toml`, each with the reason, and are not run. Tests that fail
without a mutant are left out, and named at the end. Exit code 1 if there are any, or if fewer than 95 % were caught.

A run goes on where an earlier one ended: what is in the file and was made of the same module is not run again, except
what survived once its tests have changed. The file keeps what runs of other seeds and rooms found; `caught` is of the
last run alone. The changes are made by `operators`, chosen by `selection`.
"""

import argparse
import hashlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from tests.mutants import selection
from tests.mutants.operators import Mutant

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
LEAST = 0.95
TEST_S, RUN_S = 300, 3600
"""Seconds that a test may take, and all of a mutant's tests: several times what the slowest needs on a busy machine."""
PASSED, INTERRUPTED, MISUSED = 0, 2, (3, 4, 5)
"""Exit codes of pytest: all tests passed; collection failed; it could not do what was asked of it."""

Outcome = Literal["killed", "timed out", "survived", "equivalent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a mutant. `by` is the test that failed first; `module` and `tests` are digests of what was run."""

    room: str
    line: int
    outcome: Outcome
    by: str = ""
    seconds: float = 0.0
    reason: str = ""
    module: str = ""
    tests: str = ""


@dataclass(slots=True)
class Runner:
    """Tries mutants of `tree`, which nobody else changes, in copies of it."""

    tree: Path
    jobs: int = 1
    nearest: Mapping[str, Sequence[str]] = field(default_factory=dict)
    equivalent: Mapping[str, str] = field(default_factory=dict)
    """Reasons by keys."""
    say: Callable[[str], None] = print
    unsound: set[str] = field(default_factory=set)
    """Tests that fail without a mutant, too, and so say nothing of one."""
    _sound: set[str] = field(default_factory=set)
    _running: set[subprocess.Popen[str]] = field(default_factory=set)

    def run(
        self, chosen: Sequence[Mutant], known: Mapping[str, Result], keep: Callable[[Mapping[str, Result]], None]
    ) -> dict[str, Result]:
        """The results of all by their keys; `keep` is given what is known so far after each one."""
        results: dict[str, Result] = {}
        waiting: list[Mutant] = []
        for mutant in chosen:
            if mutant.key in self.equivalent:
                results[mutant.key] = self._result(mutant, "equivalent", reason=self.equivalent[mutant.key])
            elif (old := known.get(mutant.key)) and self._stands(mutant, old):
                results[mutant.key] = old
            else:
                waiting.append(mutant)
        with _copies(self.tree, self.jobs) as copies, ThreadPoolExecutor(self.jobs) as pool:

            def attempt(mutant: Mutant) -> tuple[Mutant, Result]:
                with _borrowed(copies) as copy:
                    return mutant, self._try(mutant, copy)

            try:
                tried = [pool.submit(attempt, mutant) for mutant in waiting]
                for done, ended in enumerate(as_completed(tried), 1):
                    mutant, result = ended.result()
                    results[mutant.key] = result
                    self.say(f"{done}/{len(waiting)} {result.outcome:9} {result.seconds:4.0f} s  {mutant.key}")
                    keep(results)
            finally:
                # Ended by somebody, or by a test that fails anyway: what runs now would go on without us.
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self._running):
                    _end(process)
        keep(results)
        return {mutant.key: results[mutant.key] for mutant in chosen}

    def _stands(self, mutant: Mutant, old: Result) -> bool:
        now = self._result(mutant, old.outcome)
        same_tests = old.tests == now.tests or old.outcome in ("killed", "timed out")
        return old.module == now.module and same_tests and old.outcome != "equivalent"

    def _try(self, mutant: Mutant, copy: Path) -> Result:
        path, tests, start = copy / mutant.module, self._tests(mutant), time.monotonic()
        source, slow = path.read_text(), False
        while True:
            path.write_text(mutant.applied(source))
            try:
                ran = _pytest(copy, *tests, *(f"--deselect={name}" for name in self.unsound), running=self._running)
            finally:
                path.write_text(source)
            if ran.code in MISUSED:
                raise SystemExit(f"pytest could not run {' '.join(tests)}\n{ran.output[-3000:]}")
            if ran.timed_out and not slow:
                slow = True
            elif ran.code in (PASSED, None) or self._is_sound(ran, copy):
                break
        outcome: Outcome = "survived" if ran.code == PASSED else "timed out" if ran.timed_out else "killed"
        return self._result(mutant, outcome, by=ran.failed, seconds=round(time.monotonic() - start, 1))

    def _is_sound(self, ran: "Ran", copy: Path) -> bool:
        """Whether the test that failed passes without the mutant; else it is left out from now on."""
        if ran.failed and ran.failed not in self._sound:
            options = ["--collect-only"] if ran.code == INTERRUPTED else []
            if _pytest(copy, *options, ran.failed, running=self._running).code != PASSED:
                self.say(f"it does not pass without a mutant: {ran.failed}")
                self.unsound.add(ran.failed)
                return False
            self._sound.add(ran.failed)
        return True

    def _tests(self, mutant: Mutant) -> tuple[str, ...]:
        return selection.nearest(mutant.module, self.tree, self.nearest)

    def _result(self, mutant: Mutant, outcome: Outcome, by: str = "", seconds: float = 0.0, reason: str = "") -> Result:
        places = [self.tree / name.partition("::")[0] for name in self._tests(mutant)]
        paths = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
        return Result(
            room=selection.room_of(mutant.module),
            line=mutant.line,
            outcome=outcome,
            by=by,
            seconds=seconds,
            reason=reason,
            module=_digest([self.tree / mutant.module]),
            tests=_digest(paths),
        )


def _digest(paths: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


@contextmanager
def snapshot(root: Path) -> Iterator[Path]:
    """A copy of what git tracks of `root`, as it stands now: whoever edits it meanwhile disturbs nothing."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder) / "tree"
        for name in filter(None, tracked.split("\0")):
            if (root / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, tree / name)
        # The broker's jars, downloaded once, are only read.
        if (jars := root / "build" / "kafka-libs").is_dir():
            (tree / "build").mkdir()
            (tree / "build" / jars.name).symlink_to(jars)
        yield tree


@contextmanager
def _copies(tree: Path, count: int) -> "Iterator[queue.SimpleQueue[Path]]":
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(count):
            copies.put(shutil.copytree(tree, Path(folder) / str(number), symlinks=True))
        yield copies


@contextmanager
def _borrowed(copies: "queue.SimpleQueue[Path]") -> Iterator[Path]:
    copy = copies.get()
    try:
        yield copy
    finally:
        copies.put(copy)


@dataclass(frozen=True, slots=True)
class Ran:
    """pytest's exit code, None when it was ended, and what it said."""

    code: int | None
    output: str

    @property
    def failed(self) -> str:
        """The first test, or the file, that did."""
        said = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", self.output, re.MULTILINE)
        return said[1] if said else ""

    @property
    def timed_out(self) -> bool:
        return self.code is None or "from pytest-timeout" in self.output


def _end(process: "subprocess.Popen[str]") -> None:
    """With all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _pytest(copy: Path, *arguments: str, running: "set[subprocess.Popen[str]]") -> Ran:
    """While it runs it is one of `running`."""
    # Without cached bytecode, which is told apart by size and second alone: two mutants may be of one second.
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-q", "-x", "-m", "not slow and not ops", "-p", "no:cacheprovider", f"--timeout={TEST_S}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *arguments],
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    running.add(process)
    try:
        output, _ = process.communicate(timeout=RUN_S)
    except subprocess.TimeoutExpired:
        _end(process)
        process.communicate()
        return Ran(None, "")
    finally:
        running.discard(process)
        _end(process)  # what it started, too: a mutant may be of what ends processes
    return Ran(process.returncode, output)


# What people see


def read_equivalent(path: Path, found: Sequence[Mutant]) -> dict[str, str]:
    """Reasons by keys. Whoever is named and does not exist is an error: the text has changed, or the reason with it."""
    entries = tomllib.loads(path.read_text()).get("equivalent", [])
    reasons = {key: entry["reason"] for entry in entries for key in entry["keys"]}
    if gone := sorted(reasons.keys() - {mutant.key for mutant in found}):
        raise SystemExit(f"{path.name} names a mutant that there is not: {gone[0]}")
    return reasons


def caught(results: Mapping[str, Result]) -> float:
    """The share of those that are no equivalents."""
    counts = Counter(result.outcome for result in results.values())
    noticed = counts["killed"] + counts["timed out"]
    return noticed / max(1, noticed + counts["survived"])


def table(results: Mapping[str, Result]) -> str:
    """A line a room, then the survivors."""
    lines = [
        f"{'room':12} {'mutants':>7} {'killed':>7} {'timed out':>9} {'survived':>8} {'equivalent':>10} {'caught':>7}"
    ]
    for room in (*selection.ROOMS, "all"):
        own = {key: result for key, result in results.items() if room in (result.room, "all")}
        counts = Counter(result.outcome for result in own.values())
        if own:
            lines.append(
                f"{room:12} {len(own):7} {counts['killed']:7} {counts['timed out']:9} {counts['survived']:8} "
                f"{counts['equivalent']:10} {caught(own):7.1%}"
            )
    survivors = [(key, result) for key, result in results.items() if result.outcome == "survived"]
    lines += [f"survived, line {result.line}: {key}" for key, result in survivors]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="mutants (%(default)s)")
    parser.add_argument("--seed", type=int, default=14, help="of the choice (%(default)s)")
    parser.add_argument("--rooms", nargs="+", choices=selection.ROOMS, default=list(selection.ROOMS), help="(all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="run again what an earlier run has found")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "mutants.json", help="result (%(default)s)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with snapshot(ROOT) as tree:
        return _run(tree, options)


def _run(tree: Path, options: argparse.Namespace) -> int:
    every = selection.all_mutants(tree)
    chosen = selection.sample(
        [m for m in every if selection.room_of(m.module) in options.rooms], options.count, options.seed
    )
    known: dict[str, Result] = {}
    if options.json.exists() and not options.fresh:
        known = {key: Result(**values) for key, values in json.loads(options.json.read_text())["mutants"].items()}

    def keep(results: Mapping[str, Result]) -> None:
        values = {"seed": options.seed, "count": options.count, "caught": round(caught(results), 4)}
        mutants = {key: asdict(result) for key, result in (dict(known) | dict(results)).items()}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(values | {"mutants": mutants}, indent=1, ensure_ascii=False) + "\n")

    runner = Runner(
        tree,
        options.jobs,
        selection.read_nearest(HERE / "nearest.toml"),
        read_equivalent(HERE / "equivalent.toml", every),
    )
    print(f"{len(chosen)} of {len(every)} mutants, seed {options.seed}", flush=True)
    results = runner.run(chosen, known, keep)
    print(table(results))
    for name in sorted(runner.unsound):
        print(f"fails without a mutant: {name}")
    return 0 if caught(results) >= LEAST and not runner.unsound else 1


if __name__ == "__main__":
    sys.exit(main())
