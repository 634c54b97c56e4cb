"""The gradients of one step of each learner that processes can share; started by torchrun, each writes its own.

torchrun --nproc-per-node 3 -m tests.support.shared_step BASE OUT
"""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from rlhf_online.models import tree_attention, trunk
from rlhf_online.models.policy import Policy
from rlhf_online.rollout.types import LabelledAnswer, Rollout, ScoredRollout
from rlhf_online.training import distributed
from rlhf_online.training.policy.algorithms import ALGORITHMS
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.policy_update import PolicyUpdater
from rlhf_online.training.sft import fine_tuning

Tokens = tuple[int, ...]
PROMPTS: tuple[Tokens, ...] = ((1, 10, 3), (1, 11, 20, 3))
LENGTHS = (3, 1, 4, 2, 4)
"""Of five answers to the first prompt, and of two to the second."""


def answers() -> list[tuple[Tokens, Tokens]]:
    tokens = [tuple(range(12 + 5 * row, 12 + 5 * row + size)) for row, size in enumerate((*LENGTHS, 2, 3))]
    return [(PROMPTS[row >= len(LENGTHS)], answer) for row, answer in enumerate(tokens)]


def of_policy(base: Path, algorithm: str, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, float]]:
    """The gradient of an update's one step, and what the update said of it."""
    settings = PolicyTraining.model_validate(
        {"algorithm": algorithm, "epochs": 1, "minibatches": 1, "max_grad_norm": 1e9, "ptx_coef": 0.5, "lr": 1e-6}
    )
    pairs = answers()
    updater = PolicyUpdater(Policy.load(base, tuning="full", device=device), settings, 0, pairs[:2])
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
    # Adam's first average is a tenth of the first gradient.
    prefix = "adam.exp_avg."
    stored = updater.state()[0]
    return {name.removeprefix(prefix): 10 * stored[name] for name in stored if name.startswith(prefix)}, report.stats


def of_demonstrations(base: Path) -> dict[str, Tensor]:
    lm = trunk.load_lm(base, device=torch.device("cpu"), dtype=torch.float32)
    lm.requires_grad_(True)
    loss = fine_tuning.backward(lm, tree_attention.packer(lm, 128), answers())
    figures = distributed.all_reduce(lm.parameters(), {"loss": loss})
    gradients = {name: p.grad for name, p in lm.named_parameters() if p.grad is not None}
    return gradients | {"loss": torch.tensor(figures["loss"])}


def everything(base: Path) -> dict[str, Tensor]:
    """All gradients, and all that was said, by learner and name."""
    found = {f"sft.{name}": tensor.contiguous() for name, tensor in of_demonstrations(base).items()}
    for algorithm in ALGORITHMS:
        gradients, stats = of_policy(base, algorithm)
        found |= {f"{algorithm}.{name}": tensor for name, tensor in gradients.items()}
        found |= {f"{algorithm}.stats.{name}": torch.tensor(value) for name, value in stats.items()}
    return found


def main() -> None:
    torch.set_num_threads(1)
    base, out = map(Path, sys.argv[1:])
    with distributed.process_group(torch.device("cpu")):
        save_file(everything(base), out / f"{os.environ['RANK']}.safetensors")


if __name__ == "__main__":
    main()
