"""What training takes of memory on a CPU, at most, in a process of its own: `python -m tests.support.learning_memory`.

Arguments: a model's folder, tuning, reward.tuning, dtype. It loads what the trainer loads, has the reward models and
the policy learn twice and their checkpoints written, and prints the largest resident size in bytes.
"""

import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from rlhf_online.eventlog.gap import Place
from rlhf_online.feedback.votes import Candidate, Comparison
from rlhf_online.models.frozen import FrozenWeights
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.rollout.types import Rollout, ScoredRollout
from rlhf_online.training.checkpoint import CheckpointPart, Checkpoints
from rlhf_online.training.lease import FileLease
from rlhf_online.training.policy_update import PolicyUpdater
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import TrainerSettings
from rlhf_online.training.votes.passes import MIN_HELD_OUT
from rlhf_online.versions.manifest import Tuning
from tests.support.processes import peak_kib

PLACE = Place("log", {})


def settings(model: Path, tuning: str, reward_tuning: str) -> TrainerSettings:
    """As the test reckons with them: passes of few tokens."""
    return TrainerSettings.model_validate(
        {
            "state_dir": ".", "chat_url": "http://127.0.0.1:9", "reward_address": "127.0.0.1:9", "model": str(model),
            "tuning": tuning, "device": "cpu",
            "reward": {"tuning": reward_tuning, "batch": 2, "heads": 2, "epochs": 2},
            "policy": {"micro_batch_tokens": 64, "epochs": 1, "minibatches": 2, "max_step_kl": 1e9},
            "rollout": {"max_tokens": 8},
        }
    )  # fmt: skip


def votes(count: int, seed: int) -> list[Comparison]:
    """Of few tokens: what a pass keeps of them is nothing beside the weights, and bfloat16 is slow on many CPUs."""
    rng = random.Random(seed)
    return [
        Comparison(
            event_id=f"{seed}-{number}",
            conversation_id=f"{seed}-{number}",
            person=f"p{number}",
            prompt_token_ids=(1,),
            candidates=tuple(Candidate(token_ids=(rng.randrange(100),), position=place) for place in range(2)),
            tiers=((0,), (1,)),
        )
        for number in range(count)
    ]


def rollouts(policy: Policy) -> list[ScoredRollout]:
    pairs = [((1, number), (10 + number, 2)) for number in range(4)]
    return [
        ScoredRollout(
            rollout=Rollout(
                rollout_id=str(number), prompt_token_ids=prompt, token_ids=answer, logprobs=logprobs,
                policy_version="policy-000000", temperature=1.0, finished=True,
            ),
            score=number / 4,
        )
        for number, ((prompt, answer), logprobs) in enumerate(zip(pairs, policy.logprobs(pairs), strict=True))
    ]  # fmt: skip


def main(model: Path, tuning: Tuning, reward_tuning: Tuning, dtype: torch.dtype) -> None:
    torch.set_num_threads(1)
    chosen, once = settings(model, tuning, reward_tuning), FrozenWeights()
    judges = []
    for seed in (0, 1):
        heads = Heads(members=chosen.reward.heads)
        judge = RewardModel.load(
            model, tuning=reward_tuning, heads=heads, lora_rank=chosen.reward.lora_rank, dtype=dtype, seed=seed
        )
        once.keep(judge.decoder)
        judges.append(RewardUpdater(judge, chosen.reward, seed))
    policy = Policy.load(model, tuning=tuning, lora_rank=chosen.policy.lora_rank, dtype=dtype)
    once.keep(policy.lm)
    if policy.reference is not None:
        once.keep(policy.reference)
    learner = PolicyUpdater(policy, chosen.policy, 0)
    # So many have an update go back to its best pass, for which it keeps a copy; that of an adapter is nothing.
    held_out = votes(MIN_HELD_OUT, 9) if reward_tuning == "full" else ()
    with TemporaryDirectory(dir=model.parent) as folder, FileLease.take(Path(folder)) as lease:
        checkpoints = Checkpoints(Path(folder), 1, lease)
        for cycle in range(2):
            for judge in judges:
                judge.update(votes(4, cycle), held_out if cycle == 0 else (), [((1,), (4,)), ((1,), (6,))])
            parts = {"reward": CheckpointPart(*judges[0].state()), "held_back": CheckpointPart(*judges[1].state())}
            checkpoints.save({}, {**parts, "policy": None if cycle else CheckpointPart(*learner.state())}, {}, PLACE)
            del parts
            report = learner.update(rollouts(policy))
            assert report.rollouts and not report.undone, report
            last = {"policy": CheckpointPart(*learner.state()), "reward": None, "held_back": None}
            checkpoints.save({}, last, {}, PLACE)
            del last
    print(1024 * peak_kib())


if __name__ == "__main__":
    full_or_lora: dict[str, Tuning] = {"full": "full", "lora": "lora"}
    main(Path(sys.argv[1]), full_or_lora[sys.argv[2]], full_or_lora[sys.argv[3]], getattr(torch, sys.argv[4]))
