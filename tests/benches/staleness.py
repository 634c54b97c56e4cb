"""What old answers cost: true reward of PPO whose answers are 0, 1, 4 or 16 versions old, in the tiny world.

    make bench BENCH=staleness      about 20 minutes on two cores

Three ways to learn from an answer of an older version: the clipped ratio is against the log-probabilities that it was
sampled with ("behaviour", the default); decoupled PPO; and as if it were fresh ("none": the ratio against the policy as
the update begins). ITERATIONS updates on 512 answers; nothing undoes an update that went too far. Starts as
`benches.world` does. The exit code is 1 if something in "holds" does not.
"""

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf_online.config import PolicyTraining
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.training.policy_update import PolicyUpdater
from tests.benches.world import COMMON, MEASURED_WITH
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
    limits = {"lr_decay_updates": ITERATIONS, "max_step_kl": 1e9}
    settings = PolicyTraining.model_validate(COMMON | limits | {"algorithm": "ppo", "correction": correction})
    policy = Policy.load(sft, tuning="full", seed=seed)
    updater = PolicyUpdater(policy, settings, seed)
    updater.init_value(model)
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
