"""Supervised fine-tuning on demonstrations: where a policy that has never chatted begins.

Cross-entropy of the answers' tokens, the end of sequence included; prompts are context only. The same seed gives the
same weights.
"""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from rlhf_online.algorithms.masked import token_logprobs
from rlhf_online.errors import InvalidInput
from rlhf_online.events import Message
from rlhf_online.models import trunk
from rlhf_online.models.tokens import ChatTokenizer, Pair, collate

WARMUP = 0.03
Demonstration = tuple[Sequence[Message], str]


def fine_tune(
    model_dir: Path,
    demonstrations: Sequence[Demonstration],
    out: Path,
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    device: torch.device | str = "cpu",
) -> None:
    """Train the model in `model_dir` (random weights if it has none) and write a complete model folder to `out`.

    AdamW, the learning rate rising over the first 3 % of the steps and falling to 0 as a cosine. `progress` is told
    the step, the number of steps, and the loss in nats a token. Raises InvalidInput without demonstrations, or for a
    folder that holds no model.
    """
    if not demonstrations:
        raise InvalidInput("supervised fine-tuning needs at least one demonstration")
    tokenizer = ChatTokenizer(model_dir)
    pairs: list[Pair] = [
        (tokenizer.prompt_ids(messages), tokenizer.answer_ids(text)) for messages, text in demonstrations
    ]
    if trunk.has_weights(model_dir):
        lm = trunk.load_lm(model_dir, device=torch.device(device), dtype=torch.float32)
    else:
        lm = trunk.random_lm(model_dir, seed=seed, device=torch.device(device))
    lm.requires_grad_(True)
    parameters = list(lm.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    context, order, rng = trunk.context_length(lm.config), list[int](), random.Random(seed)
    for step in range(1, steps + 1):
        while len(order) < batch:
            order += rng.sample(range(len(pairs)), len(pairs))
        chosen, order = [pairs[index] for index in order[:batch]], order[batch:]
        loss = _loss(lm, chosen, tokenizer.pad_id, context)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        progress(step, steps, loss.item())
    trunk.save_model(lm, out, base=model_dir, keep_config=True)


def _loss(lm: trunk.PreTrainedModel, pairs: Sequence[Pair], pad_id: int, context: int) -> torch.Tensor:
    batch = collate(pairs, pad_id=pad_id, max_length=context, device=lm.device)
    decoder = getattr(lm, lm.base_model_prefix)
    hidden_BTd = decoder(input_ids=batch.tokens_BT, use_cache=False).last_hidden_state
    hidden_BAd = hidden_BTd.gather(1, batch.before_BA.unsqueeze(-1).expand(-1, -1, hidden_BTd.shape[-1]))
    logits_NV = trunk.output_head(lm)(hidden_BAd[batch.mask_BA])
    return -token_logprobs(logits_NV, batch.answer_BA[batch.mask_BA]).mean()


def _rate(step: int, steps: int) -> float:
    """The learning rate's factor: warm-up, then a cosine to 0."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))
