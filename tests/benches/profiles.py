"""What ten votes of somebody new are worth: `python -m tests.benches.profiles [--seeds 3] [--json]`.

In the tiny world a reward model learns VOTES rankings of a crowd. Then PEOPLE others each rank 10 + LATER lists of four
answers to prompts that nobody has voted on. Both groups have the same tastes in the same shares: half judge by the true
reward, a quarter also likes each filler (*flattered*), a quarter takes each amiss (*curt*). Of everybody new a profile
is made from ten votes (`rlhf_online.training.offline.profiles`, as `rlhf-online people profiles` does), and foretells
the others beside the common model.

*Accuracy* is the share of pairs that are ordered as the person did in their later votes, which are noisy: nobody
reaches 1. Control: the same votes, each of somebody who is drawn anew, so that ten votes say nothing of the later ones.

    make bench BENCH=profiles

The exit code is 1 if something in "holds" does not. Supervised models are kept in `--cache`.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rlhf_online.feedback.votes import Comparison
from rlhf_online.intervals import Z
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.simulation import world
from rlhf_online.simulation.people import Person, Taste
from rlhf_online.simulation.world import Prompt
from rlhf_online.training.offline.profiles import FIRST, find
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from tests.benches.support import arms, reports
from tests.benches.support.reports import note
from tests.support import learning
from tests.support.learning import Language

VOTES, UPDATES, PEOPLE, LATER = 1500, 3, 40, 30
TASTES: dict[str, Taste] = {"clean": "clean", "flattered": "flattered", "clean too": "clean", "curt": "drifting"}
"""By turns. Who drifts, and has from the beginning, takes every filler amiss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Of one person."""

    seed: int
    taste: str
    common: float
    profile: float
    control: float
    """What the profile gains where votes are of people who are drawn anew."""


def crowd(seed: int, what: str, size: int) -> list[Person]:
    tastes = list(TASTES.values())
    return [
        Person(
            name=f"person-{place}",
            taste=tastes[place % len(tastes)],
            rng=random.Random(f"{what} {seed} {place}"),
            drifts_after=0,
        )
        for place in range(size)
    ]


def rankings(
    language: Language, policy: Policy, whose: Sequence[Person], prompts: Sequence[Prompt], seed: int
) -> list[Comparison]:
    """One of each of these people, in their order, on four answers of the policy's."""
    asked = random.Random(f"profiles {seed}").choices(prompts, k=len(whose))
    given = language.sample(policy, [prompt for prompt in asked for _ in range(4)], seed)
    return [
        learning.ranking(given[4 * number : 4 * number + 4], person, f"vote-{seed}-{number}", created_ms=number)
        for number, person in enumerate(whose)
    ]


def measure(seed: int, sft: Path) -> list[Gain]:
    torch.set_num_threads(1)
    language, policy = Language(sft), Policy.load(sft, tuning="full")
    known = random.Random(f"who votes {seed}").choices(crowd(seed, "known", PEOPLE), k=VOTES)
    cast = rankings(language, policy, known, world.training_prompts(), seed)
    updater = RewardUpdater(RewardModel.load(sft, tuning="full", seed=seed), RewardTraining(), seed)
    reference = [(vote.prompt_token_ids, vote.candidates[0].token_ids) for vote in cast[:512]]
    for number in range(UPDATES):
        at, end = (len(cast) * count // UPDATES for count in (number, number + 1))
        updater.update(cast[at:end], [], reference)
    new = crowd(seed, "new", PEOPLE)
    votes = rankings(language, policy, new * (FIRST + LATER), world.held_out_prompts(), 90_000 + seed)
    names = [vote.person for vote in votes]
    random.Random(f"control {seed}").shuffle(names)
    mixed = [replace(vote, person=name) for vote, name in zip(votes, names, strict=True)]
    control = {told.person: told.profile - told.common for told in find(updater.model, mixed).people}
    tastes = list(TASTES)
    return [
        Gain(
            seed=seed,
            taste=tastes[int(told.person.removeprefix("person-")) % len(tastes)].removesuffix(" too"),
            common=told.common,
            profile=told.profile,
            control=control[told.person],
        )
        for told in find(updater.model, votes).people
    ]


# The report


def run(options: argparse.Namespace) -> dict[str, Any]:
    found: list[Gain] = []
    for result in arms.found(options, measure, [()]):
        gain = statistics.fmean(each.profile - each.common for each in result)
        note(f"seed {result[0].seed}: {gain:+.3f}")
        found += result
    gains = [each.profile - each.common for each in found]
    own = [each.profile - each.common for each in found if each.taste != "clean"]
    by_seed = [[each.profile - each.common for each in found if each.seed == seed] for seed in reports.seeds(options)]
    holds = {
        "of everybody new together, the profile is above the common model in each seed": all(
            statistics.fmean(each) > 0 for each in by_seed
        ),
        "and by more than chance (95 %) in all": _low(gains) > 0,
        "of those with a taste of their own, by .02 and more": statistics.fmean(own) >= 0.02,
        "control: of votes that are anybody's nothing is gained": not _low([each.control for each in found]) > 0,
    }
    return {"ok": all(holds.values()), "found": [asdict(each) for each in found], "holds": holds}


def _low(gains: Sequence[float]) -> float:
    """The lower end of the mean's 95 % interval."""
    return statistics.fmean(gains) - Z * statistics.stdev(gains) / len(gains) ** 0.5


def table(report: dict[str, Any]) -> str:
    rows = [f"{'':<12}{'people':>7}{'common':>9}{'profile':>9}{'gain':>8}{'±':>7}{'control':>9}"]
    for taste in ("all", *dict.fromkeys(each["taste"] for each in report["found"])):
        same = [each for each in report["found"] if taste in ("all", each["taste"])]
        gains = [each["profile"] - each["common"] for each in same]
        common, profile, control = (
            statistics.fmean(e[name] for e in same) for name in ("common", "profile", "control")
        )
        gain, half = statistics.fmean(gains), statistics.fmean(gains) - _low(gains)
        rows.append(f"{taste:<12}{len(same):>7}{common:>9.3f}{profile:>9.3f}{gain:>+8.3f}{half:>7.3f}{control:>+9.3f}")
    return "\n".join([*rows, *reports.verdicts(report["holds"])])


def main() -> int:
    parser = arms.parser(__doc__, "profiles", seeds=3, cache="people-sft")
    return reports.conclude(parser.parse_args(), run, table)


if __name__ == "__main__":
    sys.exit(main())
