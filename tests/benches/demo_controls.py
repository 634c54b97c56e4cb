"""The demo over seeds and vote modes, and whether each run shows what it must. Prints; asserts nothing.

    python tests/benches/demo_controls.py --seeds 3      people, random and inverted votes, three seeds: 90 minutes
    python tests/benches/demo_controls.py --votes people --chaos --json

A run's own report stays in `--out`/<votes>-<seed>.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rlhf_online.simulation import report

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("votes", "seed", "first", "last", "stderr", "versions", "swaps", "live_p50_s", "failed", "wall_s", "ok")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 … N-1")
    parser.add_argument("--votes", nargs="+", default=["people", "random", "inverted"])
    parser.add_argument("--minutes", type=float, default=9.0, help="length of each run")
    parser.add_argument("--chaos", action="store_true", help="kill the trainer and the engine in each run")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "controls")
    parser.add_argument("--json", action="store_true", help="one JSON object a run instead of a table")
    options = parser.parse_args()
    if not options.json:
        print("".join(f"{name:>12}" for name in COLUMNS), flush=True)
    for votes in options.votes:
        for seed in range(options.seeds):
            row = run(votes, seed, options)
            print(json.dumps(row) if options.json else _line(row), flush=True)


def run(votes: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One demo run in a process of its own, as a row of the table."""
    out = options.out / f"{votes}-{seed}"
    command = [sys.executable, "-m", "rlhf_online.simulation.demo", "--plain", "--votes", votes, "--seed", str(seed)]
    command += ["--minutes", str(options.minutes), "--out", str(out)] + ["--chaos"] * options.chaos
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return {"votes": votes, "seed": seed, "ok": False, "error": done.stderr.strip()[-500:]}
    values = json.loads((out / "report.json").read_text())
    expected = report.expectations(values, chaos=options.chaos)
    reward = values["true_reward"]
    return {
        "votes": votes,
        "seed": seed,
        "first": reward["first"],
        "last": reward["last"],
        "stderr": reward["stderr"],
        "versions": len(values["versions"]),
        "swaps": values["swaps"],
        "live_p50_s": values["feedback_to_live_s"]["p50"],
        "failed": values["failed_requests"],
        "wall_s": values["wall_s"],
        "ok": all(passed for _, passed in expected),
        "expectations": {text: passed for text, passed in expected},
    }


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['votes']:>12}{row['seed']:>12}  {row['error']}"
    cells = (f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in COLUMNS)
    missed = [f"      ✗ {text}" for text, passed in row["expectations"].items() if not passed]
    return "\n".join(["".join(f"{cell:>12}" for cell in cells), *missed])


if __name__ == "__main__":
    main()
