"""The policy's passes over an update's answers, in micro-batches as large as memory allows.

A micro-batch holds whole examples, at most `tokens`; those with the same prompt stand together, as it is read once.
Work that runs out of memory begins anew with half of that, and it stays so: the result is the same, but for the order
of sums. Nothing is read back from the device before the last micro-batch has been asked of it.

Shapes: N answers, A tokens of the longest, B answers of a micro-batch.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
import torch
from torch import Tensor

from rlhf_online.algorithms import kl
from rlhf_online.algorithms.masked import row_sums
from rlhf_online.models.comparison import compare
from rlhf_online.models.packing import Packed
from rlhf_online.models.policy import Outputs, Policy
from rlhf_online.models.tokens import Pair
from rlhf_online.models.transfer import onto
from rlhf_online.training import distributed
from rlhf_online.training.distributed import out_of_memory
from rlhf_online.training.policy.measured import MeasuredAnswers
from rlhf_online.training.policy.objectives import Example, MicroBatch, Objective

T = TypeVar("T")
STEP_KL_SHARE, STEP_KL_LEAST = 1 / 8, 16
"""Share of the answers, and how many at least, on which an update's KL is measured: enough for what is far too much,
and a small part of what the update costs."""


class MicroBatches:
    """Of `most` tokens at most, for `policy`; of `tokens` now."""

    def __init__(self, policy: Policy, most: int) -> None:
        self.policy = policy
        self._most = most
        self._given = self.tokens = policy.token_budget(most)

    def make_room(self, needed: int) -> None:
        """Before passes with gradients: as large as what is free now allows, `needed` bytes apart, and no larger than
        those that memory was found for before."""
        if self.tokens < self._given:
            self._most = self.tokens
        self._given = self.tokens = self.policy.token_budget(self._most, needed)

    @torch.no_grad()
    def measure(self, pairs: Sequence[Pair], temperature_N: Tensor) -> MeasuredAnswers:
        """What policy and reference say of these answers."""
        sizes_N = torch.tensor([len(answer) for _, answer in pairs], dtype=torch.long)
        mask_NA = torch.arange(int(sizes_N.max()) if pairs else 1) < sizes_N.unsqueeze(1)
        asked = MeasuredAnswers(pairs, temperature_N, mask_NA, *[torch.zeros(mask_NA.shape)] * 4)

        def measure(rows: Sequence[int]) -> Tensor:
            """Policy, reference, values and divergences of these rows, (len(rows), 4, A)."""
            measured = []
            for group in self._rows(asked, [(row,) for row in rows]):
                batch, temperature_B = self._batch(asked, group)
                said = compare(self.policy, batch, temperature_B)
                tensors = said.logprobs_BA, said.reference_BA, said.values_BA, said.kl_BA
                measured.append((group, torch.stack([tensor.float() for tensor in tensors], 1)))
            place = {row: index for index, row in enumerate(rows)}
            found_N4A = torch.zeros(len(rows), 4, mask_NA.shape[1])
            for group, tensor_B4A in measured:
                found_N4A[[place[row] for row in group], :, : tensor_B4A.shape[2]] = tensor_B4A.cpu()
            return found_N4A

        with self.policy.shards.gathered():
            found_N4A = distributed.rows(
                range(len(pairs)), lambda rows: self.fitting(lambda: measure(rows)), "measuring answers"
            )
        return MeasuredAnswers(pairs, temperature_N, mask_NA, *found_N4A.unbind(1))

    @torch.no_grad()
    def sequence_logprobs(self, answers: MeasuredAnswers, rows: Sequence[int]) -> Tensor:
        """Log-probability of each of these answers, (len(rows),), on the CPU."""
        place = {row: index for index, row in enumerate(rows)}
        found = []
        with self.policy.shards.gathered("policy"):
            for group in self._rows(answers, [(row,) for row in rows]):
                batch, outputs = self.forward(answers, group)
                found.append(([place[row] for row in group], row_sums(outputs.logprobs_BA, batch.mask_BA)))
        logprobs_N = torch.zeros(len(rows))
        for places, logprobs_B in found:
            logprobs_N[places] = logprobs_B.float().cpu()
        return logprobs_N

    @torch.no_grad()
    def step_kl(self, answers: MeasuredAnswers) -> float:
        """k3 from the policy as the update began to what it is now, nats an answer, over STEP_KL_SHARE of the answers.

        They are taken at even distances, so that answers to one prompt, which stand together, are not all of them.
        """
        count = len(answers.pairs)
        number = min(count, max(STEP_KL_LEAST, round(STEP_KL_SHARE * count)))
        chosen = [row * count // number for row in range(number)]

        def measure(rows: Sequence[int]) -> Tensor:
            """Of each of these rows, (len(rows),)."""
            measured = []
            for group in self._rows(answers, [(row,) for row in rows]):
                batch, outputs = self.forward(answers, group)
                start_BA = onto(answers.start_NA[group, : batch.mask_BA.shape[1]], self.policy.device)
                measured.append((group, row_sums(kl.k3(start_BA, outputs.logprobs_BA), batch.mask_BA)))
            place = {row: index for index, row in enumerate(rows)}
            found_N = torch.zeros(len(rows))
            for group, k3_B in measured:
                found_N[[place[row] for row in group]] = k3_B.float().cpu()
            return found_N

        with self.policy.shards.gathered("policy"):
            found_N = distributed.rows(chosen, lambda rows: self.fitting(lambda: measure(rows)), "measuring the step")
        return found_N.mean().item()

    def backward(self, objective: Objective, examples: Sequence[Example], weight: float = 1.0) -> dict[str, float]:
        """Add `weight` times the gradient of these examples' loss, in micro-batches; what the loss says.

        Of several processes each adds the gradient of its shard (`distributed`).
        """
        answers = objective.answers
        minibatch = objective.minibatch([row for example in examples for row in example], self.sequence_logprobs)
        sums: dict[str, Tensor] = {}
        own, weighs = distributed.shard(examples)
        groups = self._rows(answers, own)
        for rows, counts in distributed.passes(groups, weighs, "the policy's step", in_step=self.policy.shards.cut):
            batch, outputs = self.forward(answers, rows, entropies=objective.entropies)
            loss, stats = objective.loss(MicroBatch(rows, outputs, batch.mask_BA, minibatch))
            stats.setdefault("policy_loss", loss.detach())
            (counts * weight * loss).backward()
            sums = {name: counts * value + sums.get(name, 0) for name, value in stats.items()}
        told = torch.stack([value.double() for value in sums.values()]).tolist()
        return dict(zip(sums, told, strict=True))

    def fitting(self, work: Callable[[], T]) -> T:
        """`work()`, from its beginning and with micro-batches of half the size whenever memory runs out.

        Raises what it raised when it does so with the smallest.
        """
        while True:
            try:
                return work()
            except RuntimeError as error:
                if self.tokens <= 1 or not out_of_memory(error):
                    raise
            self.tokens //= 2
            torch.cuda.empty_cache()
            structlog.get_logger().warning("out of memory: smaller micro-batches", tokens=self.tokens)

    def forward(
        self, answers: MeasuredAnswers, rows: Sequence[int], *, entropies: bool = False
    ) -> tuple[Packed, Outputs]:
        batch, temperature_B = self._batch(answers, rows)
        return batch, self.policy.forward(batch, temperature_B, entropies=entropies)

    def _batch(self, answers: MeasuredAnswers, rows: Sequence[int]) -> tuple[Packed, Tensor]:
        """Those rows, with their temperatures."""
        batch = self.policy.collate([answers.pairs[row] for row in rows])
        return batch, onto(answers.temperature_N[list(rows)], self.policy.device)

    def _rows(self, answers: MeasuredAnswers, examples: Sequence[Example]) -> list[list[int]]:
        """The rows of whole examples, within the budget of tokens."""
        items = [[answers.pairs[row] for row in example] for example in examples]
        passes = self.policy.packer.passes(items, self.tokens)
        return [[row for index in group for row in examples[index]] for group in passes]
