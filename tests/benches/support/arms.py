"""Arms of a bench in the tiny world: each seed's supervised model is made once, and then every arm learns by itself.

What an arm names, it names by its seed: what is drawn by a hash of names (in which heads a vote is, who sees notes) is
drawn anew for each seed.
"""

import argparse
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlhf_online.feedback.votes import Comparison
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.simulation import processes, world
from rlhf_online.training.reward_update import RewardReport, RewardUpdater
from rlhf_online.training.settings import RewardTraining
from tests.benches.support import reports
from tests.benches.support.workers import Task, workers
from tests.support import learning
from tests.support.learning import ANSWERS_A_RANKING, Answer, Language

ANSWERS = 8
"""Measured to each held-out prompt."""


def parser(doc: str | None, name: str, *, seeds: int, cache: str) -> argparse.ArgumentParser:
    """Supervised models are kept in build/`cache`."""
    made = reports.parser(doc, name, seeds=seeds)
    made.add_argument("--cache", type=Path, default=reports.ROOT / "build" / cache, help="supervised models")
    return made


def found(
    options: argparse.Namespace,
    learn: Callable[..., Any],
    arms: Sequence[tuple[Any, ...]],
    steps: int = processes.SFT_STEPS,
) -> Iterator[Any]:
    """What `learn(seed, folder of its supervised model, *arm)` finds of each arm and seed, as it comes."""

    def then(result: Any) -> list[Task]:
        return [(learn, (*result, *arm)) for arm in arms] if isinstance(result, tuple) else []

    first = [(supervised, (options.cache, seed, steps)) for seed in reports.seeds(options)]
    for result in workers(options.workers, first, then):
        if not isinstance(result, tuple):
            yield result


def supervised(cache: Path, seed: int, steps: int = processes.SFT_STEPS) -> tuple[int, Path]:
    """The seed, and its supervised model in `cache`, which is made once."""
    made = cache / f"seed-{seed}" / "sft"
    if not (made / "config.json").is_file():
        torch.set_num_threads(1)
        learning.fine_tune_world(made.parent, seed, steps=steps)
    return seed, made


@dataclass(frozen=True, slots=True)
class Lists:
    """What is judged: `shown` are lists of four answers of the supervised model to training prompts, `held_out` its
    answers to prompts of which nobody judges any."""

    seed: int
    sft: Path
    shown: list[list[Answer]]
    held_out: list[Answer]

    @classmethod
    def drawn(cls, bench: str, seed: int, sft: Path, count: int) -> "Lists":
        torch.set_num_threads(1)
        language, policy, size = Language(sft), Policy.load(sft, tuning="full"), ANSWERS_A_RANKING
        asked = random.Random(f"{bench} {seed}").choices(world.training_prompts(), k=count)
        given = language.sample(policy, [prompt for prompt in asked for _ in range(size)], seed)
        held_out = language.sample(policy, [p for p in world.held_out_prompts() for _ in range(ANSWERS)], 90_000 + seed)
        return cls(seed, sft, [given[at : at + size] for at in range(0, len(given), size)], held_out)

    def taught(self, votes: Sequence[Comparison], updates: int) -> tuple[RewardUpdater, list[RewardReport]]:
        """A reward model that has learned the votes, in so many updates, and what each of these did."""
        updater = RewardUpdater(RewardModel.load(self.sft, tuning="full", seed=self.seed), RewardTraining(), self.seed)
        reference = [answer.pair for answers in self.shown[:128] for answer in answers]
        ends = [len(votes) * number // updates for number in range(updates + 1)]
        return updater, [updater.update(votes[at:end], [], reference) for at, end in itertools.pairwise(ends)]

    def accuracy(self, updater: RewardUpdater) -> float:
        """How many pairs of answers to a held-out prompt it orders as the true reward does."""
        return learning.accuracy(updater.model, self.held_out)
