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
from rlhf_online.algorithms.masked import masked_sum, row_sums
from rlhf_online.models.packing import Packed
from rlhf_online.models.policy import Outputs, Policy
from rlhf_online.models.tokens import Pair
from rlhf_online.training import distributed
from rlhf_online.training.policy.measured import MeasuredAnswers
from rlhf_online.training.policy.objectives import Example, MicroBatch, Objective

T = TypeVar("T")
STEP_KL_SHARE, STEP_KL_LEAST = 1 / 8, 16
"""Share of the answers, and how many at least, on which an update's KL is measured: enough for what is far too much,
and a small part of what the update costs."""


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch found no memory: on a CPU it has no type of its own for that."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class MicroBatches:
    """Of `tokens` at most, for `policy`."""

    def __init__(self, policy: Policy, tokens: int) -> None:
        self.policy = policy
        self.tokens = tokens

    @torch.no_grad()
    def measure(self, pairs: Sequence[Pair], temperature_N: Tensor) -> MeasuredAnswers:
        """What policy and reference say of these answers."""
        shape = (len(pairs), max((len(answer) for _, answer in pairs), default=1))
        found = MeasuredAnswers(
            pairs=pairs,
            temperature_N=temperature_N,
            mask_NA=torch.zeros(shape, dtype=torch.bool),
            start_NA=torch.zeros(shape),
            reference_NA=torch.zeros(shape),
            values_NA=torch.zeros(shape),
        )

        def measure() -> list[tuple[list[int], tuple[Tensor, ...]]]:
            measured = []
            for rows in self._rows(found, [(row,) for row in range(len(pairs))]):
                batch, outputs = self.forward(found, rows)
                reference_BA = self.policy.reference_logprobs(batch, temperature_N[rows].to(self.policy.device))
                measured.append((rows, (batch.mask_BA, outputs.logprobs_BA, outputs.values_BA.float(), reference_BA)))
            return measured

        for rows, tensors in self.fitting(measure):
            kept = (found.mask_NA, found.start_NA, found.values_NA, found.reference_NA)
            for tensor_NA, tensor_BA in zip(kept, tensors, strict=True):
                tensor_NA[rows, : tensor_BA.shape[1]] = tensor_BA.cpu()
        return found

    @torch.no_grad()
    def sequence_logprobs(self, answers: MeasuredAnswers, rows: Sequence[int]) -> Tensor:
        """Log-probability of each of these answers, (len(rows),), on the CPU."""
        place = {row: index for index, row in enumerate(rows)}
        found = []
        for group in self._rows(answers, [(row,) for row in rows]):
            batch, outputs = self.forward(answers, group)
            found.append(([place[row] for row in group], row_sums(outputs.logprobs_BA, batch.mask_BA)))
        logprobs_N = torch.zeros(len(rows))
        for places, logprobs_B in found:
            logprobs_N[places] = logprobs_B.cpu()
        return logprobs_N

    @torch.no_grad()
    def step_kl(self, answers: MeasuredAnswers) -> float:
        """k3 from the policy as the update began to what it is now, nats an answer, over STEP_KL_SHARE of the answers.

        They are taken at even distances, so that answers to one prompt, which stand together, are not all of them.
        """
        count = len(answers.pairs)
        chosen = min(count, max(STEP_KL_LEAST, round(STEP_KL_SHARE * count)))
        examples = [(row * count // chosen,) for row in range(chosen)]

        def measure() -> float:
            total = torch.zeros((), device=self.policy.device)
            for rows in self._rows(answers, examples):
                batch, outputs = self.forward(answers, rows)
                start_BA = answers.start_NA[rows, : batch.mask_BA.shape[1]].to(outputs.logprobs_BA)
                total = total + masked_sum(kl.k3(start_BA, outputs.logprobs_BA), batch.mask_BA)
            return total.item() / len(examples)

        return self.fitting(measure)

    def backward(self, objective: Objective, examples: Sequence[Example], weight: float = 1.0) -> dict[str, float]:
        """Add `weight` times the gradient of these examples' loss, in micro-batches; what the loss says.

        Of several processes each adds the gradient of its shard (`distributed`).
        """
        answers = objective.answers
        minibatch = objective.minibatch([row for example in examples for row in example], self.sequence_logprobs)
        sums: dict[str, Tensor] = {}
        own, counts = distributed.shard(examples)
        for rows in self._rows(answers, own):
            batch, outputs = self.forward(answers, rows, entropies=objective.entropies)
            loss, stats = objective.loss(MicroBatch(rows, outputs, batch.mask_BA, minibatch))
            stats.setdefault("policy_loss", loss.detach())
            (counts * weight * loss).backward()
            sums = {name: value + sums.get(name, 0) for name, value in stats.items()}
        told = torch.stack([value.double() for value in sums.values()]).tolist()
        return {name: counts * value for name, value in zip(sums, told, strict=True)}

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
        batch = self.policy.collate([answers.pairs[row] for row in rows])
        temperature_B = answers.temperature_N[list(rows)].to(self.policy.device)
        return batch, self.policy.forward(batch, temperature_B, entropies=entropies)

    def _rows(self, answers: MeasuredAnswers, examples: Sequence[Example]) -> list[list[int]]:
        """The rows of whole examples, within the budget of tokens."""
        items = [[answers.pairs[row] for row in example] for example in examples]
        passes = self.policy.packer.passes(items, self.tokens)
        return [[row for index in group for row in examples[index]] for group in passes]
