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

from rlhf_online.feedback.votes import Comparison
from rlhf_online.simulation import people
from rlhf_online.simulation.people import Person
from tests.benches.support import arms, reports
from tests.benches.support.arms import Lists
from tests.benches.support.reports import listed, note
from tests.support import learning
from tests.support.learning import Answer

VOTES, UPDATES, PEOPLE, CARELESS = 2000, 4, 40, 8
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
        vote = learning.ranking(answers, everybody[place], f"vote-{seed}-{number}")
        given.append(_first_first(vote) if careless == "first" and place < CARELESS else vote)
    return given


def _first_first(vote: Comparison) -> Comparison:
    """The answer shown first is the best, whatever it is."""
    best = next(candidate for candidate in vote.candidates if candidate.position == 0)
    return replace(vote, candidates=(best, *(candidate for candidate in vote.candidates if candidate is not best)))


def learn(seed: int, sft: Path, arm: Arm) -> Found:
    lists = Lists.drawn("people", seed, sft, VOTES)
    cast = votes(lists.shown, seed, "first" if "first" in arm else "random")
    careless = {f"person-{place}" for place in range(CARELESS)}
    if arm in ARMS[:2]:
        cast = [vote for vote in cast if vote.person not in careless]
    if "nobody known" in arm:
        cast = [replace(vote, person=f"{vote.person} {number}") for number, vote in enumerate(cast)]
    updater, _ = lists.taught(cast, UPDATES)
    known = updater.state()[1]["learned"]["raters"]["people"]
    believed = {person: 1 / (1 + math.exp(-odds)) for person, (odds, *_) in known.items()}
    return Found(
        seed=seed,
        arm=arm,
        accuracy=lists.accuracy(updater),
        looks=statistics.fmean(rho for person, rho in believed.items() if person not in careless),
        careless=statistics.fmean([rho for person, rho in believed.items() if person in careless] or [0.0]),
    )


# The report


def run(options: argparse.Namespace) -> dict[str, Any]:
    found: list[Found] = []
    for result in arms.found(options, learn, [(arm,) for arm in ARMS]):
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
    parser = arms.parser(__doc__, "people", seeds=5, cache="people-sft")
    return reports.conclude(parser.parse_args(), run, table)


if __name__ == "__main__":
    sys.exit(main())
