"""How much of what there is to gain learning leaves: `python -m tests.benches.optimum [--seeds 3] [--json]`.

    --dtype float32 bfloat16      what logits are computed in, a line each; bfloat16 is compared with float32

In the enumerable world the best policy is known, so (J* − J) / (J* − J_ref) is exact. PPO, RLOO and GRPO (without std)
learn a table of logits from samples, with the KL penalty in each of the places where programs put it. In the right ones
what is left is noise; the others are negative controls, which end at another policy however long they learn: "exact"
follows the expected gradient of the same loss, over all answers. A seed draws the world and the samples; every one of
them must keep the bound. Exit status 1 if one does not, or if a type ends elsewhere than float32 by more than chance.

Types are those of `models.precision`: bfloat16 rounds the logits, of the reference as of the policy; what learns, the
log-softmax, losses and sums are float32. In float64 all of it is.

"By answer": one estimate from the log-prob of the whole answer; else one a token, summed.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rlhf_online.algorithms import advantages, kl, policy_losses
from rlhf_online.algorithms.masked import row_sums
from tests.benches.support.types import compared
from tests.support.enumerable import EnumerableWorld, all_answers, sample, token_logprobs

Algorithm = Literal["ppo", "rloo", "grpo"]
Row = dict[str, Any]
ALGORITHMS: tuple[Algorithm | Literal["exact"], ...] = ("ppo", "rloo", "grpo", "exact")
BETA, ITERATIONS = 0.2, 150
ANSWERS_A_PROMPT, GROUP = 256, 8
EPOCHS, MINIBATCHES, LR = 2, 4, 0.05
EXACT_STEPS = 600
"""Adam (ε 1e-5), the learning rate falling to 0 linearly, no whitening: it would rescale a KL loss."""
CLIP, GAE_LAMBDA = 0.2, 0.95
SAME = 0.01
"""Share of what there is to gain by which two types may always differ."""
DTYPES = ("float64", "float32", "bfloat16")
ESTIMATES = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """An estimator of the KL, where it goes, and the bound for the share that is left."""

    name: str
    estimator: Literal["k1", "k2", "k3"]
    place: Literal["reward", "token loss", "answer loss"]
    at_most: float = math.inf
    at_least: float = -math.inf


PENALTIES = (
    Penalty(name="k1 in the reward", estimator="k1", place="reward", at_most=0.03),
    Penalty(name="k2 as a loss, by answer", estimator="k2", place="answer loss", at_most=0.03),
    Penalty(name="k2 as a loss, by token", estimator="k2", place="token loss", at_least=0.03),
    Penalty(name="k3 as a loss", estimator="k3", place="token loss", at_least=0.06),
    Penalty(name="k3 in the reward", estimator="k3", place="reward", at_least=0.15),
    Penalty(name="k1 as a loss", estimator="k1", place="token loss", at_least=0.20),
)


class TablePolicy:
    """Logits and a value for every prefix, kept in float32 at least and computed in `dtype`; it begins as the
    reference, with values of 0."""

    def __init__(self, world: EnumerableWorld, dtype: torch.dtype = torch.float64) -> None:
        self._dtype, masters = dtype, torch.promote_types(dtype, torch.float32)
        self._logits_PXV = world.reference_PXV.to(masters)
        self.table_PXV = torch.zeros_like(self._logits_PXV).requires_grad_(True)
        self.values_PX = torch.zeros_like(self._logits_PXV[..., 0]).requires_grad_(True)
        self.reference_PXV = self.logprobs().detach()
        self.rewards_PA = world.rewards_PA.to(masters)

    def logprobs(self) -> Tensor:
        logits_PXV = self._logits_PXV + self.table_PXV
        return logits_PXV.to(self._dtype).to(logits_PXV.dtype).log_softmax(-1)


@dataclass(frozen=True, slots=True)
class Batch:
    """N sampled answers: where their tokens stand in the tables, and what was computed before the first step."""

    prompts_N1: Tensor
    prefixes_NT: Tensor
    tokens_NT: Tensor
    mask_NT: Tensor
    old_logprobs_NT: Tensor
    ref_logprobs_NT: Tensor
    old_values_NT: Tensor
    advantages_NT: Tensor
    returns_NT: Tensor

    def rows(self, rows_n: Tensor) -> "Batch":
        return Batch(*(getattr(self, name)[rows_n] for name in self.__slots__))

    def of(self, table_PXV: Tensor) -> Tensor:
        return table_PXV[self.prompts_N1, self.prefixes_NT, self.tokens_NT]


@torch.no_grad()
def rollout(policy: TablePolicy, algorithm: Algorithm, penalty: Penalty, generator: torch.Generator) -> Batch:
    """Answers of the policy as it is, with their advantages; GROUP answers to a prompt are a group."""
    answers, logprobs_PXV = all_answers(), policy.logprobs()
    prompts_N, answers_N = sample(logprobs_PXV, ANSWERS_A_PROMPT, generator)
    tokens_NT, prefixes_NT = answers.tokens_AT[answers_N], answers.prefixes_AT[answers_N]
    mask_NT, prompts_N1 = answers.mask_AT[answers_N], prompts_N.unsqueeze(1)
    at = (prompts_N1, prefixes_NT, tokens_NT)
    old_NT, ref_NT, values_NT = logprobs_PXV[at], policy.reference_PXV[at], policy.values_PX[prompts_N1, prefixes_NT]
    coef = BETA if penalty.place == "reward" else 0.0
    kl_NT = ESTIMATES[penalty.estimator](old_NT, ref_NT)
    rewards_NT = advantages.token_rewards(policy.rewards_PA[prompts_N, answers_N], kl_NT, mask_NT, coef)
    scores_N, groups_N = row_sums(rewards_NT, mask_NT), torch.arange(len(prompts_N)) // GROUP
    returns_NT = torch.zeros_like(values_NT)
    match algorithm:
        case "ppo":
            advantages_NT, returns_NT = advantages.gae(rewards_NT, values_NT, mask_NT, gamma=1, gae_lambda=GAE_LAMBDA)
        case "rloo":
            advantages_NT = advantages.per_token(advantages.rloo(scores_N, groups_N), mask_NT)
        case "grpo":
            advantages_NT = advantages.per_token(advantages.grpo(scores_N, groups_N, std=False), mask_NT)
    return Batch(*at, mask_NT, old_NT, ref_NT, values_NT, advantages_NT, returns_NT)


def loss_of(batch: Batch, policy: TablePolicy, algorithm: Algorithm, penalty: Penalty) -> Tensor:
    """Every part is a sum ÷ the tokens of the minibatch, so that β weighs a KL loss as it weighs a KL in the reward."""
    tokens, logprobs_NT = batch.mask_NT.sum(), batch.of(policy.logprobs())
    loss, _ = policy_losses.ppo_loss(
        logprobs_NT, batch.old_logprobs_NT, batch.advantages_NT, batch.mask_NT, clip=CLIP, denominator=tokens
    )
    if algorithm == "ppo":
        values_NT = policy.values_PX[batch.prompts_N1, batch.prefixes_NT]
        loss += policy_losses.value_loss(
            values_NT, batch.old_values_NT, batch.returns_NT, batch.mask_NT, clip=math.inf, denominator=tokens
        )[0]
    if penalty.place != "reward":
        ref_NT, mask_NT = batch.ref_logprobs_NT, batch.mask_NT
        if penalty.place == "answer loss":
            logprobs_NT = row_sums(logprobs_NT, mask_NT).unsqueeze(1)
            ref_NT, mask_NT = row_sums(ref_NT, mask_NT).unsqueeze(1), torch.ones_like(logprobs_NT, dtype=torch.bool)
        loss += (
            BETA
            * policy_losses.kl_loss(logprobs_NT, ref_NT, mask_NT, estimator=penalty.estimator, denominator=tokens)[0]
        )
    return loss


def train(
    world: EnumerableWorld,
    algorithm: Algorithm,
    penalty: Penalty,
    seed: int,
    iterations: int = ITERATIONS,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """The policy's log-probs (P, X, V) at the end, in float64."""
    policy, generator = TablePolicy(world, dtype), torch.Generator().manual_seed(seed)
    adam, schedule = optimiser(policy, iterations)
    for _ in range(iterations):
        batch = rollout(policy, algorithm, penalty, generator)
        for _ in range(EPOCHS):
            for rows_n in torch.randperm(len(batch.mask_NT), generator=generator).chunk(MINIBATCHES):
                adam.zero_grad()
                loss_of(batch.rows(rows_n), policy, algorithm, penalty).backward()
                adam.step()
        schedule.step()
    return policy.logprobs().detach().double()


def ascend(world: EnumerableWorld, penalty: Penalty, dtype: torch.dtype = torch.float64) -> Tensor:
    """The policy that the same loss leads to without sampling: each answer weighs what its probability is."""
    policy = TablePolicy(world, dtype)
    ref_PAT = token_logprobs(policy.reference_PXV)
    adam, schedule = optimiser(policy, EXACT_STEPS)
    estimate = ESTIMATES[penalty.estimator]
    for _ in range(EXACT_STEPS):
        own_PAT = token_logprobs(policy.logprobs())
        own_PA = own_PAT.sum(2)
        kl_PA = estimate(own_PAT, ref_PAT).sum(2)
        if penalty.place == "answer loss":
            kl_PA = estimate(own_PA, ref_PAT.sum(2))
        elif penalty.place == "reward":
            kl_PA = own_PA * kl_PA.detach()
        adam.zero_grad()
        (own_PA.exp().detach() * (BETA * kl_PA - own_PA * policy.rewards_PA)).sum(1).mean().backward()
        adam.step()
        schedule.step()
    return policy.logprobs().detach().double()


def optimiser(policy: TablePolicy, iterations: int) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.LRScheduler]:
    adam = torch.optim.Adam([policy.table_PXV, policy.values_PX], lr=LR, eps=1e-5)
    return adam, torch.optim.lr_scheduler.LambdaLR(adam, lambda iteration: 1 - iteration / iterations)


def measure(penalty: Penalty, algorithm: Algorithm | Literal["exact"], seeds: Sequence[int], name: str) -> Row:
    """A row of the table: what is left by seed, and the mean KL to the reference in nats an answer."""
    gaps, nats, dtype = [], [], getattr(torch, name)
    for seed in seeds:
        world = EnumerableWorld.drawn(seed)
        policy_PXV = (
            ascend(world, penalty, dtype)
            if algorithm == "exact"
            else train(world, algorithm, penalty, seed, dtype=dtype)
        )
        gaps.append(world.gap(policy_PXV, BETA))
        nats.append(world.kl(policy_PXV).item())
    return {
        "penalty": penalty.name,
        "algorithm": algorithm,
        "dtype": name,
        "left": [round(gap, 4) for gap in gaps],
        "mean": round(statistics.mean(gaps), 4),
        "kl": round(statistics.mean(nats), 2),
        "bound": f"≤ {penalty.at_most:.0%}" if penalty.at_most < math.inf else f"≥ {penalty.at_least:.0%}",
        "holds": all(penalty.at_least <= gap <= penalty.at_most for gap in gaps),
    }


def rows(seeds: Sequence[int], dtypes: Sequence[str]) -> Iterator[Row]:
    """Of every penalty and algorithm one a type; another type than the first is compared with that."""
    for penalty in PENALTIES:
        for algorithm in ALGORITHMS:
            first: Row | None = None
            for name in dtypes:
                row = measure(penalty, algorithm, seeds, name)
                if first is not None:
                    row["against"] = compared(row["left"], first["left"], least=SAME)
                first = first or row
                yield row


def line(*cells: object) -> str:
    name, algorithm, dtype, each, mean, nats, bound, verdict = map(str, cells)
    return f"{name:<24} {algorithm:<9} {dtype:<9} {each:<24} {mean:>7} {nats:>7}  {bound:<7} {verdict}"


def verdict(row: Row) -> str:
    said = [] if row["holds"] else ["does not hold"]
    if against := row.get("against"):
        half = "" if against["interval"] is None else f" ± {against['interval']:.1%}"
        beyond = "" if against["within_noise"] else ": more than chance"
        said.append(f"{against['difference']:+.1%}{half}{beyond}")
    return ", ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first of the seeds, instead of 0")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32", "bfloat16"], help="computed in")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the tensors are small
    begin, found = time.perf_counter(), []
    if not options.json:
        print(line("KL penalty", "algorithm", "dtype", "left, by seed", "mean", "KL", "bound", ""))
    for row in rows(range(options.first, options.first + options.seeds), options.dtype):
        found.append(row)
        if not options.json:
            each = " ".join(f"{gap:.1%}" for gap in row["left"])
            cells = (row["penalty"], row["algorithm"], row["dtype"], each, f"{row['mean']:.1%}", row["kl"])
            print(line(*cells, row["bound"], verdict(row)), flush=True)
    seconds = round(time.perf_counter() - begin, 1)
    ok = all(row["holds"] and row.get("against", {"within_noise": True})["within_noise"] for row in found)
    report = {"ok": ok, "first": options.first, "seeds": options.seeds, "rows": found, "seconds": seconds}
    print(json.dumps(report) if options.json else f"{seconds} s")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
