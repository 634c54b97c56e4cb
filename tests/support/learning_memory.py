"""What training takes of memory on CPUs, at most, in processes of its own: `python -m tests.support.learning_memory`,
or several of it under torchrun.

Arguments: a state folder that `state` made, tuning, reward.tuning, dtype, sharding. They load what the trainer loads,
have the reward models and the policy learn twice, ask the policy what the gate asks, write checkpoints and versions,
and go back to both. The last line is the largest resident size of each process in bytes, by rank.
"""

import random
import shutil
import sys
from pathlib import Path

import torch

from rlhf_online.config import Sharding
from rlhf_online.eventlog.gap import Place
from rlhf_online.feedback.votes import Candidate, Comparison
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.rollout.types import Rollout, ScoredRollout
from rlhf_online.state import StateDir
from rlhf_online.training import distributed, orders
from rlhf_online.training.checkpoint import Checkpoints
from rlhf_online.training.held_back import HeldBackModel
from rlhf_online.training.learners import Learners
from rlhf_online.training.lease import FileLease
from rlhf_online.training.settings import TrainerSettings
from rlhf_online.training.votes.passes import MIN_HELD_OUT
from services.trainer.models import Beginning, follow, lead
from tests.support.processes import peak_kib

PLACE, FIRST = Place("log", {}), "policy-000000"
PROMPTS = [(1, number) for number in range(4)]


def state(folder: Path) -> Path:
    """Where the model of a state folder lies, which is its first version, too."""
    return StateDir(folder).versions / FIRST


def settings(folder: Path, tuning: str, reward_tuning: str, sharding: Sharding = "none") -> TrainerSettings:
    """As the test reckons with them: passes of few tokens."""
    return TrainerSettings.model_validate(
        {
            "state_dir": folder, "model": str(state(folder)), "chat_url": "http://127.0.0.1:9",
            "reward_address": "127.0.0.1:9", "tuning": tuning, "device": "cpu", "sharding": sharding,
            "reward": {"tuning": reward_tuning, "batch": 2, "heads": 2, "epochs": 2, "cold_epochs": 2},
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


def rollouts(learners: Learners) -> list[ScoredRollout]:
    pairs = [(prompt, (10 + number, 2)) for number, prompt in enumerate(PROMPTS)]
    sampled = learners.logprobs(pairs)
    return [
        ScoredRollout(
            rollout=Rollout(
                rollout_id=str(number), prompt_token_ids=prompt, token_ids=answer, logprobs=tuple(logprobs),
                policy_version=FIRST, temperature=1.0, finished=True,
            ),
            score=number / 4,
        )
        for number, ((prompt, answer), logprobs) in enumerate(zip(pairs, sampled, strict=True))
    ]  # fmt: skip


def lead_all(chosen: TrainerSettings, dtype: str) -> None:
    """All that rank 0 does, and has the others do."""
    first = state(chosen.state_dir)
    beginning = Beginning(live=str(first), reference=str(first), genesis=str(first), dtype=dtype)
    learners, held_back = lead(chosen, beginning, ChatTokenizer(first))
    assert held_back is not None, "the gate's own reward model"
    folder = StateDir(chosen.state_dir).checkpoints
    with FileLease.take(folder) as lease:
        checkpoints = Checkpoints(folder, 1, lease)
        for cycle in range(2):
            _cycle(cycle, learners, held_back, checkpoints)
        _publish(learners, chosen.state_dir / "written")
        assert checkpoints.last is not None
        learners.restore_policy(checkpoints.last.part("policy"))
    learners.follow(first, first)
    orders.stop()


def _cycle(cycle: int, learners: Learners, held_back: HeldBackModel, checkpoints: Checkpoints) -> None:
    """The reward models learn, the policy learns; a checkpoint after each."""
    # So many have an update go back to its best pass, for which it keeps a copy.
    held_out = votes(MIN_HELD_OUT, 9) if cycle == 0 else ()
    for update in (learners.learn, held_back.update):
        update(votes(4, cycle), held_out, [((1,), (4,)), ((1,), (6,))])
    parts = {"reward": learners.reward_part(), "held_back": held_back.part()}
    checkpoints.save({}, {**parts, "policy": None if cycle else learners.policy_part()}, {}, PLACE)
    del parts
    report = learners.update_policy(rollouts(learners), ())
    assert report.rollouts and not report.undone, report
    checkpoints.save({}, {"policy": learners.policy_part(), "reward": None, "held_back": None}, {}, PLACE)


def _publish(learners: Learners, folder: Path) -> None:
    """What the gate asks, and a version's files."""
    answers = learners.sample(PROMPTS, max_tokens=2, temperature=1.0, seed=0)
    learners.logprobs_and_kl(list(zip(PROMPTS, answers, strict=True)))
    for write in (learners.write_policy, learners.write_reward):
        write(folder)
        shutil.rmtree(folder)


def main(folder: Path, tuning: str, reward_tuning: str, dtype: str, sharding: Sharding) -> None:
    torch.set_num_threads(1)
    chosen = settings(folder, tuning, reward_tuning, sharding)
    with distributed.process_group(torch.device("cpu")):
        if distributed.is_main_process():
            lead_all(chosen, dtype)
        else:
            follow(chosen, ChatTokenizer(state(folder)))
        peak = str(1024 * peak_kib())
        peaks = [peak] if distributed.alone() else distributed.texts(peak, "the sizes")
        if distributed.is_main_process():
            print(*peaks)


if __name__ == "__main__":
    said: Sharding = "full" if sys.argv[5] == "full" else "none"
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], said)
