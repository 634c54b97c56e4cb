"""Fewer votes by better questions: `python -m tests.benches.questions [--seeds 3] [--json]`.

In the tiny world a supervised model gives four answers to each of POOL prompts, and clean people judge pairs of them:
COLD pairs at random, then STEP pairs a round, ROUNDS rounds, each an update of the reward model. In one arm all pairs
are random; in the other they are those of `rlhf_online.feedback.questions`, a tenth of them at random, by the heads of
the model so far. *Accuracy* is how many pairs of answers to held-out prompts the model orders as the true reward does.
Through each arm's accuracies after the first round goes a line in the logarithm of the votes, by least squares; *votes*
is where that of the questions reaches what random pairs come to at their end, which took *random* votes.

    make bench BENCH=questions

The exit code is 1 if something in "holds" does not. Supervised models are kept in `--cache`.
"""

import argparse
import math
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, cast

import torch

from rlhf_online.feedback import questions
from rlhf_online.feedback.questions import Candidate
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.simulation import people, world
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from tests.benches.support import arms, reports
from tests.benches.support.arms import ANSWERS
from tests.benches.support.reports import note
from tests.support import learning
from tests.support.learning import Answer, Language

POOL, COLD, STEP, ROUNDS, PEOPLE = 2400, 400, 200, 8, 20
EXPLORE = 0.1
FEWER, NOISE = 1.3, 0.02

Arm = Literal["random", "questions"]
ARMS: tuple[Arm, ...] = ("random", "questions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    seed: int
    arm: Arm
    votes: list[int]
    accuracy: list[float]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Prompts, pairs of the first update, pairs of each further one, and how many these are."""

    pool: int
    cold: int
    step: int
    rounds: int


def learn(seed: int, sft: Path, arm: Arm, sizes: Sizes) -> Found:
    torch.set_num_threads(1)
    language, policy = Language(sft), Policy.load(sft, tuning="full")
    rng = random.Random(f"questions {seed}")
    asked = rng.choices(world.training_prompts(), k=sizes.pool)
    given = language.sample(policy, [prompt for prompt in asked for _ in range(4)], seed)
    groups = [given[at : at + 4] for at in range(0, len(given), 4)]
    judged = language.sample(policy, [p for p in world.held_out_prompts() for _ in range(ANSWERS)], 90_000 + seed)
    crowd = people.population(PEOPLE, seed=seed, shares={"clean": 1.0})
    updater = RewardUpdater(RewardModel.load(sft, tuning="full", seed=seed), RewardTraining(), seed)
    reference, left = [answer.pair for answer in given[:512]], set(range(sizes.pool))
    votes, accuracy = [0], []
    for number in range(1 + sizes.rounds):
        count, explore = (sizes.cold, 1.0) if number == 0 else (sizes.step, 1.0 if arm == "random" else EXPLORE)
        chosen = questions.choose(candidates(updater.model, groups, left, known=explore < 1), count, explore, rng)
        new = []
        for question in chosen:
            group, one, other = cast(tuple[int, int, int], question.pair)
            left.discard(group)
            shown = [groups[group][one], groups[group][other]]
            new.append(learning.ranking(shown, rng.choice(crowd), f"{arm}-{seed}-{votes[-1] + len(new)}"))
        updater.update(new, [], reference)
        votes.append(votes[-1] + len(new))
        accuracy.append(learning.accuracy(updater.model, judged))
    return Found(seed=seed, arm=arm, votes=votes[1:], accuracy=accuracy)


def candidates(
    model: RewardModel, groups: Sequence[Sequence[Answer]], left: set[int], *, known: bool
) -> list[Candidate]:
    """All pairs of different answers of the prompts that are left; with `known` what the heads think of them."""
    pairs = [(number, *both) for number in sorted(left) for both in combinations(range(4), 2)]
    pairs = [(g, a, b) for g, a, b in pairs if groups[g][a].token_ids != groups[g][b].token_ids]
    scores: dict[tuple[int, int], list[float]] = {}
    if known:
        places = [(number, place) for number in sorted(left) for place in range(4)]
        found_NK = model.scores([groups[number][place].pair for number, place in places])[:, 0]
        scores = dict(zip(places, found_NK.tolist(), strict=True))
    nothing = [0.0]
    return [
        Candidate(
            pair=(g, a, b),
            group=g,
            probabilities=questions.probabilities(scores.get((g, a), nothing), scores.get((g, b), nothing)),
        )
        for g, a, b in pairs
    ]


# The report


def line(votes: Sequence[int], accuracy: Sequence[float]) -> tuple[float, float]:
    """Offset and slope in the logarithm of the votes, by least squares."""
    fitted = statistics.linear_regression([math.log(count) for count in votes], accuracy)
    return fitted.intercept, fitted.slope


def needed(arms: dict[Arm, Found]) -> tuple[float, int]:
    """Votes by which questions come to what random pairs come to, and how many that took."""
    end = arms["random"].votes[-1]
    (a, b), (c, d) = (line(arms[arm].votes[1:], arms[arm].accuracy[1:]) for arm in ARMS)
    target = a + b * math.log(end)
    return (math.exp((target - c) / d) if d > 0 else math.inf), end


def run(options: argparse.Namespace) -> dict[str, Any]:
    sizes = Sizes(options.pool, options.cold, options.step, options.rounds)
    found: list[Found] = []
    for result in arms.found(options, learn, [(arm, sizes) for arm in ARMS]):
        note(f"seed {result.seed}, {result.arm}: " + " ".join(f"{each:.3f}" for each in result.accuracy))
        found.append(result)
    by_seed: dict[int, dict[Arm, Found]] = {
        seed: {each.arm: each for each in found if each.seed == seed} for seed in reports.seeds(options)
    }
    rows = []
    for seed, both in by_seed.items():
        votes, end = needed(both)
        last = {arm: both[arm].accuracy[-1] for arm in ARMS}
        rows.append({"seed": seed, "votes": votes, "random": end, "fewer": end / votes, "last": last})
    ratio = statistics.geometric_mean([row["fewer"] for row in rows])
    holds = {
        f"questions need {FEWER:g} times fewer votes": ratio >= FEWER,
        f"they are never worse by more than {NOISE:g}": all(
            row["last"]["questions"] >= row["last"]["random"] - NOISE for row in rows
        ),
    }
    return {
        "ok": all(holds.values()),
        "fewer": ratio,
        "rows": rows,
        "found": [asdict(each) for each in found],
        "holds": holds,
    }


def table(report: dict[str, Any]) -> str:
    lines = [f"{'seed':<6}{'random':>8}{'votes':>8}{'fewer':>8}{'accuracy at random':>20}{'by questions':>14}"]
    for row in report["rows"]:
        last = row["last"]
        lines.append(
            f"{row['seed']:<6}{row['random']:>8}{row['votes']:>8.0f}{row['fewer']:>8.2f}"
            f"{last['random']:>20.3f}{last['questions']:>14.3f}"
        )
    return "\n".join([*lines, f"geometric mean {report['fewer']:.2f}", *reports.verdicts(report["holds"])])


def main() -> int:
    parser = arms.parser(__doc__, "questions", seeds=3, cache="people-sft")
    for name, value in (("pool", POOL), ("cold", COLD), ("step", STEP), ("rounds", ROUNDS)):
        parser.add_argument(f"--{name}", type=int, default=value)
    return reports.conclude(parser.parse_args(), run, table)


if __name__ == "__main__":
    sys.exit(main())
