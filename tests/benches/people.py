"""Who is believed: `python -m tests.benches.people [--seeds 5] [--json]`.

In the tiny world PEOPLE people rank VOTES lists of four answers, in UPDATES updates of the reward model. Four in five
look (Plackett–Luce on the true reward); the others click at random, or take what they are shown first. The arms of a
seed have the same answers and the same honest votes:

    honest alone              the votes of those who look
    the same, nobody known    control: each of them under a name of its own, so that nothing is learned of anybody
    a fifth clicks            all votes, a fifth of the people clicking at random
    that, nobody known        control: all of these votes under names of their own
    a fifth takes the first   all votes, a fifth of the people taking what they are shown first

*Accuracy* is how many pairs of answers to held-out prompts the reward model orders as the true reward does; *ρ* how far
those who look and the others are believed at last (`rlhf_online.training.votes.raters`), on average.

    make bench BENCH=people

The exit code is 1 if something in "holds" does not. Supervised models are kept in `--cache`.
"""

import argparse
import math
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from rlhf_online.feedback.votes import Comparison
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.simulation import people, world
from rlhf_online.simulation.people import Person
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from tests.benches.support import reports
from tests.benches.support.reports import listed, note
from tests.benches.support.workers import Task, workers
from tests.support import learning
from tests.support.learning import Answer, Language

VOTES, UPDATES, PEOPLE, CARELESS = 2000, 4, 40, 8
ANSWERS = 8
"""Measured to each held-out prompt."""
TOLERANCE = 0.01

Care = Literal["random", "first"]
Arm = Literal[
    "honest alone", "the same, nobody known", "a fifth clicks", "that, nobody known", "a fifth takes the first"
]
ARMS: tuple[Arm, ...] = get_args(Arm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    seed: int
    arm: Arm
    accuracy: float
    looks: float
    """ρ of those who look, on average."""
    careless: float
    """ρ of the others; 0 where there are none."""


def supervised(cache: Path, seed: int) -> int:
    """The supervised model of a seed, made once."""
    folder = cache / f"seed-{seed}"
    if not (folder / "sft" / "config.json").is_file():
        torch.set_num_threads(1)
        learning.fine_tune_world(folder, seed)
    return seed


def crowd(seed: int, careless: Care) -> list[Person]:
    """The first CARELESS of them do not look; who takes the first is told apart where the vote is made."""
    everybody = people.population(PEOPLE, seed=seed, shares={"clean": 1.0})
    if careless == "random":
        for person in everybody[:CARELESS]:
            person.mode = "random"
    return everybody


def votes(shown: Sequence[Sequence[Answer]], seed: int, careless: Care) -> list[Comparison]:
    """One on each list, by somebody who is drawn."""
    everybody, rng = crowd(seed, careless), random.Random(f"who votes {seed}")
    given = []
    for number, answers in enumerate(shown):
        place = rng.randrange(PEOPLE)
        vote = learning.ranking(answers, everybody[place], f"vote-{number}")
        given.append(_first_first(vote) if careless == "first" and place < CARELESS else vote)
    return given


def _first_first(vote: Comparison) -> Comparison:
    """The answer shown first is the best, whatever it is."""
    best = next(candidate for candidate in vote.candidates if candidate.position == 0)
    return replace(vote, candidates=(best, *(candidate for candidate in vote.candidates if candidate is not best)))


def learn(seed: int, arm: Arm, cache: Path) -> Found:
    torch.set_num_threads(1)
    sft = cache / f"seed-{seed}" / "sft"
    language, policy = Language(sft), Policy.load(sft, tuning="full")
    asked = random.Random(f"people {seed}").choices(world.training_prompts(), k=VOTES)
    given = language.sample(policy, [prompt for prompt in asked for _ in range(4)], seed)
    judged = language.sample(policy, [p for p in world.held_out_prompts() for _ in range(ANSWERS)], 90_000 + seed)
    cast = votes([given[at : at + 4] for at in range(0, len(given), 4)], seed, "first" if "first" in arm else "random")
    careless = {f"person-{place}" for place in range(CARELESS)}
    if arm in ARMS[:2]:
        cast = [vote for vote in cast if vote.person not in careless]
    if "nobody known" in arm:
        cast = [replace(vote, person=f"{vote.person} {number}") for number, vote in enumerate(cast)]
    updater = RewardUpdater(RewardModel.load(sft, tuning="full", seed=seed), RewardTraining(), seed)
    reference = [answer.pair for answer in given[:512]]
    for number in range(UPDATES):
        at, end = (len(cast) * count // UPDATES for count in (number, number + 1))
        updater.update(cast[at:end], [], reference)
    known = updater.state()[1]["learned"]["raters"]["people"]
    believed = {person: 1 / (1 + math.exp(-odds)) for person, (odds, *_) in known.items()}
    return Found(
        seed=seed,
        arm=arm,
        accuracy=learning.accuracy(updater.model, judged),
        looks=statistics.fmean(rho for person, rho in believed.items() if person not in careless),
        careless=statistics.fmean([rho for person, rho in believed.items() if person in careless] or [0.0]),
    )


# The report


def run(options: argparse.Namespace) -> dict[str, Any]:
    found: list[Found] = []

    def arms(result: object) -> list[Task]:
        """Once a supervised model is there."""
        return [(learn, (result, arm, options.cache)) for arm in ARMS] if isinstance(result, int) else []

    seeds = range(options.first, options.first + options.seeds)
    for result in workers(options.workers, [(supervised, (options.cache, seed)) for seed in seeds], arms):
        if isinstance(result, Found):
            note(f"seed {result.seed}, {result.arm}: {result.accuracy:.3f}")
            found.append(result)
    found.sort(key=lambda each: each.seed)

    def mean(arm: Arm, name: str = "accuracy") -> float:
        return statistics.fmean(getattr(each, name) for each in found if each.arm == arm)

    alone, unknown, clicks, unknown_clicks, first = map(mean, ARMS)
    holds = {
        f"who look lose nothing by being looked at: as where nobody is known, − {TOLERANCE:g}": alone
        >= unknown - TOLERANCE,
        f"a fifth clicking at random costs no accuracy, − {TOLERANCE:g}": clicks >= alone - TOLERANCE,
        f"nor does a fifth taking the first, − {TOLERANCE:g}": first >= alone - TOLERANCE,
        "control: where nobody is known, clicking at random costs more": unknown_clicks < clicks,
        "who looks is believed more than who clicks, in each seed": all(
            each.looks > each.careless for each in found if each.arm == "a fifth clicks"
        ),
    }
    return {"ok": all(holds.values()), "found": [asdict(each) for each in found], "holds": holds}


def table(report: dict[str, Any]) -> str:
    rows = [f"{'':<26}{'accuracy, a seed each':<36}{'mean':<8}{'ρ of who looks':<16}ρ of the others"]
    for arm in ARMS:
        same = [each for each in report["found"] if each["arm"] == arm]
        accuracy = [each["accuracy"] for each in same]
        looks, careless = (statistics.fmean(each[name] for each in same) for name in ("looks", "careless"))
        others = f"{careless:.2f}" if careless else ""
        rows.append(f"{arm:<26}{listed(accuracy):<36}{statistics.fmean(accuracy):<8.3f}{looks:<16.2f}{others}")
    return "\n".join([*rows, *reports.verdicts(report["holds"])])


def main() -> int:
    parser = reports.parser(__doc__, "people", seeds=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--cache", type=Path, default=reports.ROOT / "build" / "people-sft", help="supervised models")
    return reports.conclude(parser.parse_args(), run, table)


if __name__ == "__main__":
    sys.exit(main())
