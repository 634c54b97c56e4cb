"""Do audiences of opposed weights learn to differ? `python -m tests.benches.audiences [--seeds 3] [--json]`.

In the tiny world, through the trainer as its service wires it: log, reward service, gate, registry; torch answers in
the place of vLLM. People rank four answers by one of two objectives, *short* and *long*, by the number of tokens alone.
They are asked by the common adapter, for which both count alike; "brief" counts the first alone and "wordy" the second.
Each of CYCLES cycles begins with VOTES votes on each objective; the gate asks of each candidate that it wins at least
half of its comparisons by its own weights. Measured: the mean tokens of ANSWERS answers to each of nine prompts, by
what serves everybody and each audience in the end, and how many versions of each were let through.

    make bench BENCH=audiences

The exit code is 1 if something in "holds" does not.
"""

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog
import torch

from rlhf_online.events import Message
from rlhf_online.gate.win_rate import WinRateCheck
from rlhf_online.rewards import audiences
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.settings import RewardTraining, RolloutSettings
from tests.benches.support import reports
from tests.benches.support.reports import listed, note
from tests.benches.support.workers import Task, workers
from tests.support import learning
from tests.support.trainer_world import LENIENT, MAX_TOKENS, PROMPTS, World, world

SFT_STEPS, CYCLES, VOTES = 200, 8, 24
ANSWERS = 64
LEAST = 0.5
"""Tokens by which an audience's answers are to be shorter, or longer, than everybody's, in each seed."""
OBJECTIVES = ("short", "long")
AUDIENCES = {"brief": {"short": 1.0, "long": 0.0}, "wordy": {"short": 0.0, "long": 1.0}}
EVERYBODY = "everybody"
SETTINGS: dict[str, Any] = {
    "tuning": "lora",
    "reward": RewardTraining(objectives=OBJECTIVES, policy_accuracy=0.0),
    "policy": PolicyTraining.model_validate(
        {
            "algorithm": {"name": "ppo", "kl_coef": 0.04, "value_lr": 1e-3},
            "lr": 1e-3,
            "epochs": 4,
            "minibatches": 4,
            "max_step_kl": 4.0,
        }
    ),
    "rollout": RolloutSettings(per_cycle=96, answers_per_prompt=8, max_tokens=MAX_TOKENS),
    "gate": LENIENT.model_copy(update={"samples": 48, "win_rate": WinRateCheck(min=0.5)}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`tokens`: the mean answer's, by who is answered; `versions`: how many of each passed the gate."""

    seed: int
    tokens: Mapping[str, float]
    versions: Mapping[str, int]
    seconds: float
    """Of one core."""


def learn(seed: int, folder: Path) -> Found:
    torch.set_num_threads(1)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # the report alone is stdout's
    began = time.process_time()
    shutil.copytree(learning.fine_tune_world(folder, seed, steps=SFT_STEPS), folder / "model")
    with world(folder, seed=seed, **SETTINGS) as tiny, tiny.trainer() as trainer:
        tiny.conversations = 1000 * seed  # whose number draws what they ask
        for name, weights in AUDIENCES.items():
            audiences.define(tiny.registry.store, name, weights, {}, OBJECTIVES)
        for _ in range(CYCLES):
            tiny.chat(VOTES, answers=4, objective="short")
            tiny.chat(VOTES, answers=4, objective="long", longest=True)
            while trainer.run_once():
                pass
        lines = {EVERYBODY: "policy"} | {name: f"policy.{name}" for name in AUDIENCES}
        return Found(
            seed=seed,
            tokens={who: tokens(tiny, audiences.live(tiny.registry, who) or "") for who in lines},
            versions={who: len(tiny.registry.lineage(kind)) for who, kind in lines.items()},
            seconds=time.process_time() - began,
        )


def tokens(tiny: World, version: str) -> float:
    """Of the mean answer by this version, "" for everybody's."""
    prompts = [tiny.tokenizer.prompt_ids([Message(role="user", content=text)]) for text in PROMPTS]
    answers = tiny.engine.of(version).sample(prompts, ANSWERS, MAX_TOKENS, 1.0)
    return statistics.fmean(len(answer.token_ids) for answer in answers)


# The report


def run(options: argparse.Namespace) -> dict[str, Any]:
    found: list[Found] = []
    seeds = reports.seeds(options)
    tasks: list[Task] = [(learn, (seed, options.out / f"seed-{seed}")) for seed in seeds]
    for result in workers(options.workers, tasks):
        note(f"seed {result.seed}: " + ", ".join(f"{who} {value:.2f}" for who, value in result.tokens.items()))
        found.append(result)
    found.sort(key=lambda each: each.seed)
    holds = {
        f"brief is shorter than everybody's by {LEAST:g} tokens, in each seed": all(
            each.tokens[EVERYBODY] - each.tokens["brief"] >= LEAST for each in found
        ),
        f"wordy is longer than everybody's by {LEAST:g} tokens, in each seed": all(
            each.tokens["wordy"] - each.tokens[EVERYBODY] >= LEAST for each in found
        ),
    }
    return {"ok": all(holds.values()), "seeds": [asdict(each) for each in found], "holds": holds}


def table(report: dict[str, Any]) -> str:
    seeds = report["seeds"]
    rows = [f"{'answered':<14}{'tokens an answer, a seed each':<40}versions let through"]
    for who in (EVERYBODY, *AUDIENCES):
        passed = " ".join(str(each["versions"][who]) for each in seeds)
        rows.append(f"{who:<14}{listed([each['tokens'][who] for each in seeds]):<40}{passed}")
    return "\n".join([*rows, *reports.verdicts(report["holds"])])


def main() -> int:
    parser = reports.parser(__doc__, "audiences", seeds=3)
    return reports.conclude(parser.parse_args(), run, table)


if __name__ == "__main__":
    sys.exit(main())
