"""Answers of a language model in this process, for judging a candidate and for the simulation; vLLM gives people's.

Shapes: B prompts, T tokens, V vocabulary, E tokens that end an answer. Invariant: the same seed, prompts and weights
give the same answers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

SAMPLES_AT_ONCE = 256


@torch.no_grad()
def sample(
    lm: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    eos_ids: Sequence[int],
) -> list[tuple[int, ...]]:
    """One answer a prompt, from the full support; an answer that ended by itself ends with one of `eos_ids`."""
    generator = torch.Generator(lm.device).manual_seed(seed)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[tuple[int, ...]] = [()] * len(prompts)
    for start in range(0, len(order), SAMPLES_AT_ONCE):
        group = order[start : start + SAMPLES_AT_ONCE]
        found = _together(lm, [prompts[index] for index in group], max_tokens, temperature, generator, eos_ids)
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
) -> list[tuple[int, ...]]:
    """Answers to prompts of one batch, which answers leave as they end."""
    device, width = lm.device, max(map(len, prompts))
    step_BT = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in prompts], device=device)
    seen_BT = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=device)
    position_BT = (seen_BT.cumsum(1) - 1).clamp(min=0)
    ends_E = torch.tensor(list(eos_ids), device=device)
    cache = DynamicCache(config=lm.config)
    answers: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    for _ in range(max_tokens):
        output: Any = lm(
            input_ids=step_BT,
            attention_mask=seen_BT,
            position_ids=position_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        probabilities_BV = (output.logits[:, -1].float() / temperature).softmax(-1)
        token_B = torch.multinomial(probabilities_BV, 1, generator=generator).squeeze(1)
        for row, token in zip(rows, token_B.tolist(), strict=True):
            answers[row].append(token)
        (open_b,) = (~torch.isin(token_B, ends_E)).nonzero(as_tuple=True)
        if not len(open_b):
            break
        if len(open_b) < len(rows):
            cache.batch_select_indices(open_b)
            token_B, seen_BT, position_BT = token_B[open_b], seen_BT[open_b], position_BT[open_b]
            rows = [rows[index] for index in open_b.tolist()]
        step_BT, position_BT = token_B.unsqueeze(1), position_BT[:, -1:] + 1
        seen_BT = torch.cat([seen_BT, torch.ones_like(seen_BT[:, :1])], 1)
    return [tuple(answer) for answer in answers]
