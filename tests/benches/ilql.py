"""What does ILQL make of logged answers: `python -m tests.benches.ilql [--seeds 0 1 2 3 4] [--json]`.

In the enumerable world (`tests.support.enumerable`), where every value is known: 400 answers a prompt are logged, drawn
from the reference and worth their rewards; Q and V are tables, learned by `algorithms.ilql` in full batches. Of the
policy that they steer to: its exact reward and KL, beside the reference's, and the reward of the best policy at that
KL, which no policy exceeds. `best_logged` is the mean of the best logged answer of each prompt.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf_online.algorithms.ilql import Valued, ilql_loss, steered
from tests.benches.support.figures import show
from tests.support.enumerable import PROMPTS, VOCABULARY, EnumerableWorld, all_answers, answer_logprobs, sample

STEPS, RATE, POLYAK = 700, 0.1, 0.5
TAUS, CQL, BETA = (0.5, 0.7, 0.9), 0.1, 0.1


@dataclass(frozen=True, slots=True)
class Logged:
    """N answers, by number, with their prompts and what they are worth."""

    prompts_N: Tensor
    answers_N: Tensor
    rewards_N: Tensor


def logged(world: EnumerableWorld, *, per_prompt: int, seed: int) -> Logged:
    prompts_N, answers_N = sample(world.reference_PXV, per_prompt, torch.Generator().manual_seed(seed))
    return Logged(prompts_N, answers_N, world.rewards_PA[prompts_N, answers_N])


def expectile(values: list[float], tau: float) -> float:
    """The m at which Σ |τ − 1(v < m)| (v − m) = 0, by halving."""
    low, high = min(values), max(values)
    for _ in range(60):
        middle = (low + high) / 2
        pull = sum((tau if value >= middle else 1 - tau) * (value - middle) for value in values)
        low, high = (middle, high) if pull > 0 else (low, middle)
    return low


def learned(log: Logged, *, tau: float, cql_coef: float) -> tuple[Tensor, Tensor]:
    """Q (P, X, V) and V (P, X): tables, full batches, float64."""
    answers = all_answers()
    q_PXV = torch.zeros(PROMPTS, answers.prefixes, VOCABULARY, dtype=torch.float64, requires_grad=True)
    v_PX = torch.zeros(PROMPTS, answers.prefixes, dtype=torch.float64, requires_grad=True)
    slow_PXV = q_PXV.detach().clone()
    prefixes_NT, tokens_NT = answers.prefixes_AT[log.answers_N], answers.tokens_AT[log.answers_N]
    mask_NT = answers.mask_AT[log.answers_N]
    prompts_N1 = log.prompts_N.unsqueeze(1)
    ends_NT = mask_NT & ~torch.nn.functional.pad(mask_NT[:, 1:], (0, 1))
    adam = torch.optim.Adam([q_PXV, v_PX], lr=RATE)
    for step in range(STEPS):
        adam.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        adam.zero_grad()
        valued = Valued(
            q_PXV[prompts_N1, prefixes_NT, tokens_NT].unsqueeze(0),
            q_PXV[prompts_N1, prefixes_NT].logsumexp(-1).unsqueeze(0),
            slow_PXV[prompts_N1, prefixes_NT, tokens_NT],
            v_PX[prompts_N1, prefixes_NT],
        )
        loss, _ = ilql_loss(
            valued,
            ends_NT * log.rewards_N.unsqueeze(1),
            mask_NT,
            expectile=tau,
            cql_coef=cql_coef,
        )
        loss.backward()
        adam.step()
        slow_PXV.lerp_(q_PXV.detach(), POLYAK)
    return q_PXV.detach(), v_PX.detach()


def values_of(world: EnumerableWorld, q_PXV: Tensor, v_PX: Tensor, *, beta: float) -> Tensor:
    """The steered policy's log-probs, (P, X, V)."""
    advantages_PXV = q_PXV - v_PX.unsqueeze(-1)
    found = steered(world.reference_PXV.flatten(0, 1), advantages_PXV.flatten(0, 1), beta)
    return found.view_as(world.reference_PXV)


def reward(world: EnumerableWorld, policy_PXV: Tensor) -> float:
    return (answer_logprobs(policy_PXV).exp() * world.rewards_PA).sum(1).mean().item()


def best_at(world: EnumerableWorld, kl: float) -> float:
    """The reward of π ∝ π_ref exp(r / β) at the β whose KL, mean over prompts, is that."""
    reference_PA = answer_logprobs(world.reference_PXV)
    low, high = 1e-3, 1e3
    for _ in range(80):
        beta = (low * high) ** 0.5
        best_PA, _ = world.optimum(beta)
        found = (best_PA.exp() * (best_PA - reference_PA)).sum(1).mean().item()
        low, high = (beta, high) if found > kl else (low, beta)
    return (world.optimum(low)[0].exp() * world.rewards_PA).sum(1).mean().item()


def measure(seed: int) -> dict[str, Any]:
    world = EnumerableWorld.drawn(seed)
    log = logged(world, per_prompt=400, seed=seed)
    best_P = torch.stack([log.rewards_N[log.prompts_N == prompt].max() for prompt in range(PROMPTS)])
    found: dict[str, Any] = {"reference": reward(world, world.reference_PXV), "best_logged": best_P.mean().item()}
    for tau in TAUS:
        policy_PXV = values_of(world, *learned(log, tau=tau, cql_coef=CQL), beta=BETA)
        kl = world.kl(policy_PXV).item()
        found |= {f"steered_{tau}": reward(world, policy_PXV), f"kl_{tau}": kl, f"best_at_kl_{tau}": best_at(world, kl)}
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = [measure(seed) for seed in options.seeds]
    values: dict[str, Any] = {name: [each[name] for each in found] for name in found[0]}
    gains = [each[f"steered_{TAUS[1]}"] - each["reference"] for each in found]
    parts = [
        (each[f"steered_{TAUS[1]}"] - each["reference"]) / (each[f"best_at_kl_{TAUS[1]}"] - each["reference"])
        for each in found
    ]
    values |= {"least_gain": round(min(gains), 3), "least_part_of_the_best_at_its_kl": round(min(parts), 3)}
    values["ok"] = min(gains) > 0.3 and min(parts) > 0.8
    show(values, as_json=options.json)


if __name__ == "__main__":
    main()
