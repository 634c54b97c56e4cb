"""The gradients of one step of each learner that processes can share, in float64, and what the step said."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from rlhf_online.feedback.votes import Candidate, Comparison, Rating, Vote
from rlhf_online.models import sharding, tree_attention, trunk
from rlhf_online.models.policy import Policy
from rlhf_online.models.predictor import Predictor
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.rollout.types import LabelledAnswer, Rollout, ScoredRollout
from rlhf_online.training import distributed
from rlhf_online.training.policy.algorithms import ALGORITHMS
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.policy_update import PolicyUpdater
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from rlhf_online.training.sft import fine_tuning

Tokens = tuple[int, ...]
PROMPTS: tuple[Tokens, ...] = ((1, 10, 3), (1, 11, 20, 3))
LENGTHS = (3, 1, 4, 2, 4)
"""Of five answers to the first prompt, and of two to the second."""


def answers() -> list[tuple[Tokens, Tokens]]:
    tokens = [tuple(range(12 + 5 * row, 12 + 5 * row + size)) for row, size in enumerate((*LENGTHS, 2, 3))]
    return [(PROMPTS[row >= len(LENGTHS)], answer) for row, answer in enumerate(tokens)]


def of_policy(
    base: Path,
    algorithm: str,
    device: str = "cpu",
    tuning: Literal["full", "lora"] = "full",
    dtype: torch.dtype = torch.float64,
    *,
    sharded: bool = False,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The gradient of an update's one step, and what the update said of it."""
    settings = PolicyTraining.model_validate(
        {"algorithm": algorithm, "epochs": 1, "minibatches": 1, "max_grad_norm": 1e9, "ptx_coef": 0.5, "lr": 1e-6}
    )
    pairs = answers()
    policy = Policy.load(base, tuning=tuning, device=device, dtype=dtype)
    if sharded:
        policy.shards.over(distributed.mesh(policy.device))
    updater = PolicyUpdater(policy, settings, 0, pairs[:2])
    scored = [
        ScoredRollout(
            rollout=Rollout(
                rollout_id=str(row),
                prompt_token_ids=prompt,
                token_ids=answer,
                logprobs=tuple(-4.0 - 0.1 * place for place in range(len(answer))),
                policy_version="",
                temperature=1.0,
                finished=row % 2 == 0,
            ),
            score=float((row * 5) % 7),
        )
        for row, (prompt, answer) in enumerate(pairs)
    ]
    labels = [
        LabelledAnswer(prompt_token_ids=prompt, token_ids=answer, desirable=row % 3 > 0)
        for row, (prompt, answer) in enumerate(pairs)
    ]
    report = updater.update(scored, labels)
    assert report.rollouts and not report.undone, report
    figures = {"kl": report.kl, "step_kl": report.step_kl, "behaviour_k3": report.behaviour_k3, "reward": report.reward}
    return _gradient(updater.state()[0]), report.stats | figures


def _gradient(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adam's first average is a tenth of the first gradient."""
    prefix = "adam.exp_avg."
    return {name.removeprefix(prefix): 10 * stored[name] for name in stored if name.startswith(prefix)}


def votes(count: int, tag: str) -> list[Vote]:
    """Of all kinds, by three people, on two objectives; of answers shown in some place."""
    found: list[Vote] = []
    for number in range(count):
        size = 1 + number % 3
        firsts = [12 + (3 * number + 7 * k) % 60 for k in range(3)]
        answers = [tuple(range(first, first + 1 + size)) for first in firsts]
        candidates = tuple(Candidate(token_ids=answer, position=k) for k, answer in enumerate(answers))
        common = {
            "event_id": f"{tag}-{number}",
            "conversation_id": f"{tag}-{number}",
            "person": f"person {number % 3}",
            "prompt_token_ids": PROMPTS[number % 2],
            "objective": ("", "harmless")[number % 2],
        }
        if number % 4 == 0:
            found.append(Comparison(**common, candidates=candidates, tiers=((1,), (0, 2))))
        elif number % 4 == 1:
            found.append(Comparison(**common, candidates=candidates[:2], tiers=((1,), (0,)), strength=2))
        elif number % 4 == 2:
            found.append(Rating(**common, candidate=candidates[0], up=number % 8 == 2))
        else:
            signal = "regenerate" if number % 8 == 3 else ""
            found.append(Rating(**common, candidate=candidates[1], up=not signal and number % 16 == 7, signal=signal))
    return found


def of_reward(
    base: Path,
    *,
    count: int = 17,
    tuning: Literal["full", "lora"] = "full",
    dtype: torch.dtype = torch.float64,
    sharded: bool = False,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The gradient of an update's one step, and what the update measured and learned beside the model."""
    settings = RewardTraining.model_validate(
        {"tuning": tuning, "batch": 100, "cold_epochs": 1, "lr": 1e-6, "objectives": ("helpful", "harmless")}
    )
    heads = Heads(objectives=settings.objectives, members=settings.heads)
    model = RewardModel.load(base, tuning=tuning, heads=heads, dtype=dtype)
    if sharded:
        model.shards.over(distributed.mesh(model.device))
    updater = RewardUpdater(model, settings, 0)
    report = updater.update(votes(count, "new"), votes(60, "held out"), answers())
    tensors, values = updater.state()
    learned = values["learned"]
    figures = report.measured.figures() | {"loss": report.loss, "held_out_loss": report.held_out_loss}
    figures |= {f"position {place}": bias for place, bias in enumerate(learned["position_bias"])}
    for objective, (bias, people) in enumerate(learned["rater_bias"]):
        figures |= {f"bias {objective}": bias} | {f"bias {objective} {name}": value for name, value in people.items()}
    normal = {name: tensor for name, tensor in tensors.items() if name.startswith("normal.")}
    assert report.passes == 1
    return _gradient(tensors) | normal, figures


def of_demonstrations(base: Path, *, sharded: bool = False) -> dict[str, Tensor]:
    lm = trunk.load_lm(base, device=torch.device("cpu"), dtype=torch.float64)
    predict, packer = Predictor(lm.requires_grad_(True)), tree_attention.packer(lm, 128)
    if sharded:
        sharding.shard(predict, distributed.mesh(lm.device))
    loss = fine_tuning.backward(predict, packer, answers(), sharded=sharded)
    figures = distributed.all_reduce(lm.parameters(), {"loss": loss})
    gradients = {name: sharding.on_cpu(p.grad) for name, p in lm.named_parameters() if p.grad is not None}
    return gradients | {"loss": torch.tensor(figures["loss"])}


def everything(base: Path, *, sharded: bool = False) -> dict[str, Tensor]:
    """All gradients, and all that was said, by learner and name."""
    found = {f"sft.{name}": tensor for name, tensor in of_demonstrations(base, sharded=sharded).items()}
    for algorithm in ALGORITHMS:
        gradients, stats = of_policy(base, algorithm, sharded=sharded)
        found |= {f"{algorithm}.{name}": tensor for name, tensor in gradients.items()}
        found |= {f"{algorithm}.stats.{name}": torch.tensor(value) for name, value in stats.items()}
    learned = {
        "reward": of_reward(base, sharded=sharded),
        "one vote": of_reward(base, count=1, sharded=sharded),  # two of three processes have nothing of their own
        "reward lora": of_reward(base, tuning="lora", sharded=sharded),
        "ppo lora": of_policy(base, "ppo", tuning="lora", sharded=sharded),
    }
    for kind, (gradients, figures) in learned.items():
        found |= {f"{kind}.{name}": tensor for name, tensor in gradients.items()}
        found |= {f"{kind}.{name}": torch.tensor(value) for name, value in figures.items()}
    return found


def together(base: Path, sharded: bool = False) -> dict[str, Tensor]:
    """`everything`, in a process that shares it with others."""
    with distributed.process_group(torch.device("cpu")):
        return everything(base, sharded=sharded)
