"""What the long learning benches have in common: their options, their report, and what must hold."""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def parser(doc: str | None, name: str, *, seeds: int, first: int = 0) -> argparse.ArgumentParser:
    """The options of the bench `name`, which runs `seeds` seeds from `first` on unless told."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seeds", type=int, default=seeds, help="how many seeds")
    made.add_argument("--first", type=int, default=first, help="the first of them")
    made.add_argument("--workers", type=int, default=2, help="processes, with one thread each")
    made.add_argument("--out", type=Path, default=ROOT / "build" / f"bench-{name}", help="folder of the run")
    made.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return made


def seeds(options: argparse.Namespace) -> range:
    """Those that the options ask for."""
    return range(options.first, options.first + options.seeds)


def conclude(
    options: argparse.Namespace,
    run: Callable[[argparse.Namespace], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> int:
    """Run in an empty folder, keep the report there and print it; the exit code is 1 if something does not hold."""
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    report = run(options)
    (options.out / "report.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report) if options.json else table(report))
    return 0 if all(report["holds"].values()) else 1


def verdicts(holds: Mapping[str, bool]) -> list[str]:
    """A line for each thing that must hold."""
    return [f"{'holds' if held else 'DOES NOT HOLD':<15}{what}" for what, held in holds.items()]


def listed(values: Sequence[float]) -> str:
    """One value a seed."""
    return " ".join(f"{value:.3f}" for value in values)


def note(text: str) -> None:
    """Progress, on stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
