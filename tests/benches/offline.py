"""A policy from a log at once, in the tiny world: `python -m tests.benches.offline [--seeds 3] [--rankings 1500]`.

For each seed: supervised fine-tuning, that many rankings of four of its answers by 24 people, 15 % of them held out;
then each algorithm of `train --offline` that learns from comparisons, all weights, two passes. Measured is the true
reward of 4,107 answers to held-out prompts, and the KL to the fine-tuned model; in "holds": each gains more than .05 in
each seed. Seeds are FIRST and those after it, which nothing here was tuned on.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from rlhf_online.config.offline import Algorithm, OfflineSettings
from rlhf_online.feedback.votes import Vote
from rlhf_online.models.policy import Policy
from rlhf_online.simulation import people, world
from rlhf_online.training.offline import ilql, policy
from rlhf_online.training.offline.votes import Gathered
from rlhf_online.training.optimiser import unseen
from tests.benches.support import reports
from tests.benches.support.reports import listed, note
from tests.benches.support.workers import workers
from tests.benches.world import MEASURED_WITH, PEOPLE
from tests.support import learning
from tests.support.learning import Language, Measured

FIRST = 50
HELD_OUT = 0.15
RATES: dict[str, float] = {"dpo": 3e-4, "ipo": 3e-4, "kto": 3e-4, "best-of-n": 4e-4, "ilql": 1e-3}
"""Of all weights of a model so small; those of `tests.benches.world` where it has the algorithm."""
ALGORITHMS: tuple[Algorithm, ...] = tuple(name for name in get_args(Algorithm) if name in RATES)
LEAST_GAIN = 0.05


def measure(seed: int, folder: Path, rankings: int) -> dict[str, Measured]:
    """Of the fine-tuned model ("sft"), and of what each algorithm makes of it."""
    torch.set_num_threads(1)
    sft = learning.fine_tune_world(folder, seed)
    language, start = Language(sft), Policy.load(sft, tuning="full")
    crowd = people.population(PEOPLE, seed=seed)
    votes: list[Vote] = list(learning.rankings(language, start, crowd, world.training_prompts(), rankings, seed))
    cut = round(HELD_OUT * len(votes))
    found = {"sft": learning.measure(language, start, seed=MEASURED_WITH)}
    for name in ALGORITHMS:
        out = folder / name
        settings = OfflineSettings(
            model=sft, out=out, algorithm=name, tuning="full", lr=RATES[name], batch=32, seed=seed, device="cpu"
        )
        learn = ilql.learn if name == "ilql" else policy.learn
        learn(settings, Gathered(learned=votes[cut:], held_out=votes[:cut]), torch.device("cpu"), 1e9, unseen)
        found[name] = learning.measure(language, Policy.load(out, reference=sft, tuning="full"), seed=MEASURED_WITH)
        note(f"seed {seed}: {name} {found[name].mean:.3f} after {found['sft'].mean:.3f}")
    return found


def run(options: argparse.Namespace) -> dict[str, Any]:
    seeds = reports.seeds(options)
    tasks = [(measure, (seed, options.out / str(seed), options.rankings)) for seed in seeds]
    found: list[dict[str, Measured]] = list(workers(options.workers, tasks))
    rewards = {name: [each[name].mean for each in found] for name in ("sft", *ALGORITHMS)}
    gains = {
        name: [after - before for after, before in zip(rewards[name], rewards["sft"], strict=True)] for name in rewards
    }
    return {
        "rankings": options.rankings,
        "rewards": rewards,
        "kl": {name: [each[name].kl for each in found] for name in ALGORITHMS},
        "holds": {
            f"{name} gains more than {LEAST_GAIN} in each seed": min(gains[name]) > LEAST_GAIN for name in ALGORITHMS
        },
    }


def table(report: dict[str, Any]) -> str:
    lines = [f"{'algorithm':<12}{'true reward, each seed':<28}KL, nats"]
    for name, rewards in report["rewards"].items():
        lines.append(f"{name:<12}{listed(rewards):<28}{listed(report['kl'].get(name, []))}")
    return "\n".join([*lines, "", *reports.verdicts(report["holds"])])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = reports.parser(__doc__, "offline", seeds=3, first=FIRST)
    parser.add_argument("--rankings", type=int, default=1500, help="votes a seed")
    return reports.conclude(parser.parse_args(arguments), run, table)


if __name__ == "__main__":
    sys.exit(main())
