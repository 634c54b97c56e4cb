"""Do labels of a model help beside people's? `python -m tests.benches.judge [--seeds 5] [--json]`.

In the tiny world PEOPLE_VOTES pairs of answers are judged by clean people, and AI_VOTES others by no person (votes of
the source "ai"), in two updates of the reward model. What they weigh against people's is learned
(`training.votes.label_reliability`); for comparison the same labels as if people had given them. One model puts the
better answer first ACCURACY of the time, one throws a coin, one puts the worse one first. *Accuracy* is how many pairs
of answers to held-out prompts the reward model orders as the true reward does; ρ what a model's label weighs at last.

    make bench BENCH=judge

The exit code is 1 if something in "holds" does not. Supervised models, of 300 steps, are kept in `--cache`.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rlhf_online.events import AI
from rlhf_online.feedback.votes import Candidate, Comparison, Vote
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.simulation import people, world
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from tests.benches.support import arms, reports
from tests.benches.support.reports import listed, note
from tests.benches.support.workers import Task, workers
from tests.support import learning
from tests.support.learning import Answer, Language

SFT_STEPS, UPDATES = 300, 2
PEOPLE_VOTES, AI_VOTES, PEOPLE = 300, 600, 24
ACCURACY = 0.85
ANSWERS = 8
"""Measured to each held-out prompt."""
LEAST_GAIN, MOST_LOSS = 0.03, 0.02

ARMS = {
    "people alone": (None, True),
    "and a good model": ("good", True),
    "and a coin": ("coin", True),
    "and a contrary model": ("contrary", True),
    "a contrary model as people": ("contrary", False),
}
"""Who labels besides people, and whether its votes say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    seed: int
    accuracy: dict[str, float]
    reliability: dict[str, float]


def right(kind: str, rng: random.Random) -> bool:
    """Whether the model puts the better answer first."""
    return {"good": rng.random() < ACCURACY, "coin": rng.random() < 0.5, "contrary": False}[kind]


def learn(seed: int, cache: Path) -> Found:
    """All arms of a seed, on the same answers."""
    torch.set_num_threads(1)
    _, sft = arms.supervised(cache, seed, SFT_STEPS)
    language, policy = Language(sft), Policy.load(sft, tuning="full")
    rng = random.Random(f"judge {seed}")
    asked = rng.choices(world.training_prompts(), k=PEOPLE_VOTES + AI_VOTES)
    given = language.sample(policy, [prompt for prompt in asked for _ in range(2)], seed)
    shown = [given[at : at + 2] for at in range(0, len(given), 2)]
    crowd = people.population(PEOPLE, seed=seed, shares={"clean": 1.0})
    votes = [
        learning.ranking(pair, rng.choice(crowd), f"people-{seed}-{n}") for n, pair in enumerate(shown[:PEOPLE_VOTES])
    ]
    judged = language.sample(policy, [p for p in world.held_out_prompts() for _ in range(ANSWERS)], 90_000 + seed)
    reference = [answer.pair for answer in given[:512]]
    accuracy, reliability = {}, {}
    for name, (kind, told) in ARMS.items():
        labels = [] if kind is None else labelled(kind, shown[PEOPLE_VOTES:], seed, by_ai=told)
        updater = taught(sft, votes, labels, reference, seed)
        accuracy[name] = learning.accuracy(updater.model, judged)
        reliability[name] = updater.reliability.get(AI, 1.0)
    return Found(seed=seed, accuracy=accuracy, reliability=reliability)


def labelled(kind: str, shown: Sequence[Sequence[Answer]], seed: int, *, by_ai: bool) -> list[Comparison]:
    """A label of each pair whose true rewards differ."""
    rng = random.Random(f"{kind} {seed}")
    votes = []
    for number, (one, other) in enumerate(shown):
        if one.reward != other.reward:
            better, worse = (one, other) if (one.reward > other.reward) == right(kind, rng) else (other, one)
            votes.append(
                Comparison(
                    event_id=f"ai-{seed}-{number}",
                    conversation_id=f"ai-{seed}-{number}",
                    person="judge",
                    prompt_token_ids=one.prompt_ids,
                    candidates=(Candidate(token_ids=better.token_ids), Candidate(token_ids=worse.token_ids)),
                    tiers=((0,), (1,)),
                    by_ai=by_ai,
                )
            )
    return votes


@dataclass(frozen=True, slots=True)
class Taught:
    model: RewardModel
    reliability: dict[str, float]


def taught(sft: Path, votes: Sequence[Vote], labels: Sequence[Vote], reference: Sequence[Any], seed: int) -> Taught:
    """In UPDATES updates, each with its share of both."""
    settings = RewardTraining()
    updater = RewardUpdater(RewardModel.load(sft, tuning="full", seed=seed), settings, seed)
    reliability: dict[str, float] = {}
    for number in range(UPDATES):
        report = updater.update([*votes[number::UPDATES], *labels[number::UPDATES]], [], reference)
        reliability = report.signal_reliability
    return Taught(updater.model, reliability)


# The report


def run(options: argparse.Namespace) -> dict[str, Any]:
    found: list[Found] = []
    tasks: list[Task] = [(learn, (seed, options.cache)) for seed in reports.seeds(options)]
    for result in workers(options.workers, tasks):
        note(f"seed {result.seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in result.accuracy.items()))
        found.append(result)
    found.sort(key=lambda each: each.seed)

    def over(name: str, than: str) -> float:
        return statistics.fmean(each.accuracy[name] - each.accuracy[than] for each in found)

    def believed(kind: str) -> list[float]:
        return [each.reliability[f"and a {kind}" + " model" * (kind != "coin")] for each in found]

    ranked = zip(believed("good"), believed("coin"), believed("contrary"), strict=True)
    alone = "people alone"
    holds = {
        f"a good model beside people is {LEAST_GAIN:g} better than people alone": over("and a good model", alone)
        >= LEAST_GAIN,
        f"a coin costs at most {MOST_LOSS:g}": over("and a coin", alone) >= -MOST_LOSS,
        "a contrary model harms less than as people": over("and a contrary model", "a contrary model as people") > 0.1,
        "control: as people a contrary model does harm": over("a contrary model as people", alone) < -0.1,
        "a good model is believed more than a coin, a coin more than a contrary one, in each seed": all(
            good > coin > contrary for good, coin, contrary in ranked
        ),
    }
    return {"ok": all(holds.values()), "seeds": [asdict(each) for each in found], "holds": holds}


def table(report: dict[str, Any]) -> str:
    seeds = report["seeds"]
    rows = [f"{'':<30}{'accuracy, a seed each':<38}ρ"]
    for name, (kind, told) in ARMS.items():
        reliability = listed([each["reliability"][name] for each in seeds]) if kind and told else ""
        rows.append(f"{name:<30}{listed([each['accuracy'][name] for each in seeds]):<38}{reliability}")
    return "\n".join([*rows, *reports.verdicts(report["holds"])])


def main() -> int:
    parser = arms.parser(__doc__, "judge", seeds=5, cache="judge-sft")
    return reports.conclude(parser.parse_args(), run, table)


if __name__ == "__main__":
    sys.exit(main())
