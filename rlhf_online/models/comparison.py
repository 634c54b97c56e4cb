"""Policy and reference, asked about the same answers in one pass: what each says of the tokens, and how far the
distributions are apart that they draw them from.

Shapes: B pairs, A answer tokens (see `packing`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_online.models import token_head, trunk
from rlhf_online.models.packing import Packed
from rlhf_online.models.policy import Policy, of_each, values
from rlhf_online.models.precision import computing
from rlhf_online.models.predictor import hidden_states, temperatures
from rlhf_online.models.tokens import Pair


@dataclass(frozen=True, slots=True)
class Compared:
    """Of a batch's answers, each (B, A), 0 where masked: log-probabilities of the tokens by policy and reference,
    values of the states before them, and KL(policy ‖ reference) of what each is drawn from, nats."""

    logprobs_BA: Tensor
    reference_BA: Tensor
    values_BA: Tensor
    kl_BA: Tensor


@torch.no_grad()
def compare(policy: Policy, batch: Packed, temperature_B: float | Tensor = 1.0) -> Compared:
    """Of models that are whole (`Policy.shards`); both sample at this temperature."""
    with computing(policy.device, policy.dtype):
        own = trunk.output_head(policy.lm), hidden_states(policy.lm, batch, policy.lower)
        with policy.as_reference() as lm:
            theirs = trunk.output_head(lm), hidden_states(lm, batch, policy.lower)
            found = token_head.compared(own, theirs, batch.answer_N, temperatures(batch, temperature_B))
    logprobs_BA, reference_BA, kl_BA = map(batch.by_answer, found)
    values_BA = batch.by_answer(values(policy.value_head, own[1]))
    return Compared(logprobs_BA=logprobs_BA, reference_BA=reference_BA, values_BA=values_BA, kl_BA=kl_BA)


def logprobs_and_kl(policy: Policy, pairs: Sequence[Pair]) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """For each pair, in their order, of each of its answer tokens the log-probability and the KL, at temperature 1."""

    def said(batch: Packed) -> tuple[Tensor, Tensor]:
        found = compare(policy, batch)
        return found.logprobs_BA, found.kl_BA

    return [(logprobs, kl) for logprobs, kl in of_each(policy.packer, pairs, said)]
