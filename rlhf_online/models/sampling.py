"""Answers of a language model in this process, for judging a candidate and for the simulation; vLLM gives people's.

Shapes: B prompts, T tokens, V vocabulary, E tokens that end an answer. Invariant: the same seed, prompts and weights
give the same answers.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

SAMPLES_AT_ONCE = 256


class Steering(Protocol):
    """Changes what is sampled from, by a model of its own that reads along (`action_values.Steering`)."""

    def cache(self) -> DynamicCache:
        """Of that model, for one batch."""
        ...

    def logprobs(self, logits_BV: Tensor, cache: DynamicCache, inputs: dict[str, Tensor]) -> Tensor:
        """From the language model's logits, given what it has just read."""
        ...


@torch.no_grad()
def sample(
    lm: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    eos_ids: Sequence[int],
    steering: Steering | None = None,
) -> list[tuple[int, ...]]:
    """One answer a prompt, from the full support of the model, or of what `steering` makes of it; an answer that ended
    by itself ends with one of `eos_ids`."""
    generator = torch.Generator(lm.device).manual_seed(seed)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[tuple[int, ...]] = [()] * len(prompts)
    for start in range(0, len(order), SAMPLES_AT_ONCE):
        group = order[start : start + SAMPLES_AT_ONCE]
        chosen = [prompts[index] for index in group]
        found = _together(lm, chosen, max_tokens, temperature, generator, eos_ids, steering)
        for index, answer in zip(group, found, strict=True):
            answers[index] = answer
    return answers


def _together(
    lm: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    temperature: float,
    generator: torch.Generator,
    eos_ids: Sequence[int],
    steering: Steering | None,
) -> list[tuple[int, ...]]:
    """Answers to prompts of one batch, which answers leave as they end."""
    device, width = lm.device, max(map(len, prompts))
    step_BT = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in prompts], device=device)
    seen_BT = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=device)
    position_BT = (seen_BT.cumsum(1) - 1).clamp(min=0)
    ends_E = torch.tensor(list(eos_ids), device=device)
    cache, theirs = DynamicCache(config=lm.config), None if steering is None else steering.cache()
    answers: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    for _ in range(max_tokens):
        inputs = {"input_ids": step_BT, "attention_mask": seen_BT, "position_ids": position_BT}
        output: Any = lm(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits_BV = output.logits[:, -1].float()
        if steering is not None and theirs is not None:
            logits_BV = steering.logprobs(logits_BV, theirs, inputs)
        probabilities_BV = (logits_BV / temperature).softmax(-1)
        token_B = torch.multinomial(probabilities_BV, 1, generator=generator).squeeze(1)
        for row, token in zip(rows, token_B.tolist(), strict=True):
            answers[row].append(token)
        (open_b,) = (~torch.isin(token_B, ends_E)).nonzero(as_tuple=True)
        if not len(open_b):
            break
        if len(open_b) < len(rows):
            for each in (cache,) if theirs is None else (cache, theirs):
                each.batch_select_indices(open_b)
            token_B, seen_BT, position_BT = token_B[open_b], seen_BT[open_b], position_BT[open_b]
            rows = [rows[index] for index in open_b.tolist()]
        step_BT, position_BT = token_B.unsqueeze(1), position_BT[:, -1:] + 1
        seen_BT = torch.cat([seen_BT, torch.ones_like(seen_BT[:, :1])], 1)
    return [tuple(answer) for answer in answers]
