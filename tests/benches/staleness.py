"""What old answers cost: true reward of PPO whose answers are 0, 1, 4 or 16 versions old, in the tiny world.

    make bench BENCH=staleness      about 20 minutes on two cores

Three ways to learn from an answer of an older version: the clipped ratio is against the log-probabilities that it was
sampled with ("behaviour", the default); decoupled PPO; and as if it were fresh ("none": the ratio against the policy as
the update begins). ITERATIONS updates on 512 answers; nothing undoes an update that went too far. Starts as
`benches.world` does. The exit code is 1 if something in "holds" does not.
"""

import argparse
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from tests.benches.support import reports
from tests.benches.support.reports import listed, note
from tests.benches.support.workers import Task, workers
from tests.benches.world import MEASURED_WITH, ROWS, Start, gain, prepare, summary
from tests.support import learning
from tests.support.learning import Answer, Language, Loop, Measured

LAGS = (1, 4, 16)
CORRECTIONS = ("behaviour", "decoupled", "none")
ITERATIONS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """What came of learning from answers `lag` versions old."""

    seed: int
    correction: str
    lag: int
    measured: Measured


def learn(seed: int, folder: Path, correction: str, lag: int) -> Stale:
    """PPO; the answers of update i were sampled by version max(0, i − lag), and so were their log-probs."""
    torch.set_num_threads(1)
    sft = folder / "sft"
    language, model = Language(sft), RewardModel.load(sft, folder=folder / "reward", tuning="full")
    settings = ROWS["ppo"].settings("ppo", "full")
    ppo = settings.algorithm.model_copy(update={"correction": correction})
    chosen = {"lr_decay_updates": ITERATIONS, "max_step_kl": 1e9, "algorithm": ppo}
    settings = settings.model_copy(update=chosen)
    policy = Policy.load(sft, tuning="full", seed=seed)
    updater = learning.updater_on(policy, settings, model, seed)
    loop = Loop(language, updater, seed, scores=learning.scored_by(model))

    def sample() -> tuple[list[Answer], list[tuple[float, ...]]]:
        answers = loop.sample()
        return answers, policy.logprobs([answer.pair for answer in answers])

    waiting = deque(sample() for _ in range(lag + 1))
    for _ in range(ITERATIONS):
        loop.step(*waiting.popleft())
        waiting.append(sample())
    return Stale(
        seed=seed,
        correction=correction,
        lag=lag,
        measured=learning.measure(language, policy, seed=MEASURED_WITH),
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The report: a row for each correction and lag, and what holds."""
    began = time.monotonic()
    kinds = [("behaviour", 0), *((correction, lag) for lag in LAGS for correction in CORRECTIONS)]
    starts: dict[int, Start] = {}
    found: list[Stale] = []

    def folder(seed: int) -> Path:
        return options.out / f"seed-{seed}"

    def then(done: Start | Stale) -> list[Task]:
        if not isinstance(done, Start):
            return []
        return [(learn, (done.seed, folder(done.seed), *kind)) for kind in kinds]

    for done in workers(options.workers, [(prepare, (seed, folder(seed))) for seed in reports.seeds(options)], then):
        if isinstance(done, Start):
            starts[done.seed] = done
            note(f"seed {done.seed}: SFT {done.sft.mean:.3f}, reward model {done.accuracy:.3f}")
        else:
            found.append(done)
            note(f"seed {done.seed}: {done.correction}, lag {done.lag}: {done.measured.mean:.3f}")
    rows = []
    for correction, lag in kinds:
        these = sorted((one for one in found if (one.correction, one.lag) == (correction, lag)), key=lambda s: s.seed)
        rows.append(
            {
                "correction": correction if lag else "fresh",
                "lag": lag,
                "reward": summary([one.measured.mean for one in these]),
                "gain": gain([(one.measured, starts[one.seed].sft) for one in these]),
                "kl": summary([one.measured.kl for one in these]),
            }
        )
    report = {
        "seeds": options.seeds,
        "iterations": ITERATIONS,
        "sft": summary([starts[seed].sft.mean for seed in sorted(starts)]),
        "rows": rows,
        "wall_s": round(time.monotonic() - began, 1),
    }
    report["holds"] = holds(rows)
    return report


def holds(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """The order of the curve, by the means over the seeds; .03 is the standard error of a seed."""
    reward = {(row["correction"], row["lag"]): row["reward"]["mean"] for row in rows}
    fresh = reward["fresh", 0]
    return {
        "fresh answers are the best (but for .03)": all(fresh >= value - 0.03 for value in reward.values()),
        "4 versions old, behaviour: within .05 of fresh": reward["behaviour", 4] >= fresh - 0.05,
        "16 versions old: behaviour > none": reward["behaviour", 16] > reward["none", 16],
        "16 versions old: decoupled > none": reward["decoupled", 16] > reward["none", 16],
        "uncorrected: worse from 1 to 4 to 16": reward["none", 1] > reward["none", 4] > reward["none", 16],
    }


def table(report: dict[str, Any]) -> str:
    lines = [f"{'':<12}{'lag':>5}{'true reward':>13}{'gain over SFT':>18}{'KL':>8}   seeds"]
    lines.append(f"{'SFT':<12}{'':>5}{report['sft']['mean']:>13.3f}{'':>26}   {listed(report['sft']['seeds'])}")
    for row in report["rows"]:
        gained = f"{row['gain']['mean']:+.3f} ± {row['gain']['stderr']:.3f}"
        lines.append(
            f"{row['correction']:<12}{row['lag']:>5}{row['reward']['mean']:>13.3f}{gained:>18}"
            f"{row['kl']['mean']:>8.2f}   {listed(row['reward']['seeds'])}"
        )
    lines += ["", *reports.verdicts(report["holds"])]
    return "\n".join([*lines, f"\nwall {report['wall_s']:.0f} s"])


def main() -> int:
    return reports.conclude(reports.parser(__doc__, "staleness", seeds=2).parse_args(), run, table)


if __name__ == "__main__":
    sys.exit(main())
