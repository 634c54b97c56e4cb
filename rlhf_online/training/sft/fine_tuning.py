"""Supervised fine-tuning on demonstrations: where a policy that has never chatted begins.

Cross-entropy of the answers' tokens, the end of sequence included; prompts are context only. Sequences are packed
(`models.packing`): loss and gradient are those of each alone. The same seed gives the same weights.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf_online.config import Dtype, Sharding
from rlhf_online.errors import InvalidInput
from rlhf_online.models import precision, sharding, tree_attention, trunk
from rlhf_online.models.chat_template import text_of
from rlhf_online.models.packing import Packer
from rlhf_online.models.precision import Written
from rlhf_online.models.predictor import Predictor
from rlhf_online.models.tensor_headers import has_weights
from rlhf_online.models.tokens import ChatTokenizer, Pair, fit
from rlhf_online.training import distributed
from rlhf_online.training.optimiser import clip
from rlhf_online.training.sft.demonstrations import Demonstration, listed

WARMUP = 0.03
MICRO_BATCH_TOKENS = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """How long to learn, and how: optimiser steps of `batch` demonstrations each, the highest learning rate, and the
    seed of the order and of random weights. With `sharding` "full" each of several processes keeps but a piece of the
    weights."""

    steps: int
    batch: int
    lr: float
    seed: int
    sharding: Sharding = "none"


def fine_tune(
    model_dir: Path,
    demonstrations: Sequence[Demonstration],
    out: Path,
    passes: Passes,
    *,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    device: torch.device | str = "cpu",
    dtype: Dtype = "float32",
    recompute: bool = False,
) -> "Prepared":
    """Train the model in `model_dir` (random weights if it has none) and write a complete model folder to `out`, of
    weights of the types that it has. Layers compute in `dtype` (`precision.choose`), and with `recompute` what the
    gradient needs anew.

    AdamW, the learning rate rising over the first 3 % of the steps and falling to 0 as a cosine. `progress` is told
    the step, the number of steps, and the loss in nats a token. Processes that torchrun started share each step; the
    first of them writes. A demonstration whose answer does not fit into the model's context, or which its chat template
    does not write, is left out; what is returned says which and why. Raises InvalidInput where none is left, for a
    folder that holds no model, and for a tokenizer that is not the model's.
    """
    tokenizer, device = ChatTokenizer(model_dir), torch.device(device)
    computed_in = layer_type(dtype, device, model_dir)
    if has_weights(model_dir):
        lm = trunk.load_lm(model_dir, device=device, dtype=torch.float32)
    else:
        lm = trunk.random_lm(model_dir, seed=passes.seed, device=device)
    predict = Predictor(lm.requires_grad_(True))
    limits = trunk.limits(lm.config)
    prepared = to_pairs(demonstrations, tokenizer, limits.context, limits.vocabulary)
    pairs = prepared.pairs
    packer = tree_attention.packer(lm, limits.context, computed_in)
    if recompute:
        tree_attention.recomputed(lm, computed_in)
    if sharded := passes.sharding == "full" and not distributed.alone():
        distributed.agree(f"the model in {model_dir}", lambda: distributed.fingerprint(dict(lm.named_parameters())))
        sharding.shard(predict, distributed.mesh(device))
    parameters = list(lm.parameters())
    pieces = [sharding.piece(parameter) for parameter in parameters]
    optimiser = torch.optim.AdamW(pieces, lr=passes.lr, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, passes.steps))
    order, rng = list[int](), random.Random(passes.seed)
    for step in range(1, passes.steps + 1):
        while len(order) < passes.batch:
            order += rng.sample(range(len(pairs)), len(pairs))
        chosen, order = [pairs[index] for index in order[: passes.batch]], order[passes.batch :]
        for parameter in parameters:
            parameter.grad = None
        loss = backward(predict, packer, chosen, dtype=computed_in, sharded=sharded)
        loss = distributed.all_reduce(parameters, {"loss": loss})["loss"]
        clip(parameters, pieces, 1.0)
        optimiser.step()
        schedule.step()
        progress(step, passes.steps, loss)
    with sharding.gathered(predict):
        if distributed.is_main_process():
            trunk.save_model(lm, out, base=model_dir, written=Written.of(model_dir), keep_config=True)
    return prepared


def backward(
    predict: Predictor,
    packer: Packer,
    pairs: Sequence[Pair],
    *,
    max_tokens: int = 0,
    dtype: torch.dtype = torch.float32,
    sharded: bool = False,
) -> float:
    """Add the gradient of the mean cross-entropy of all answer tokens to the model's; return that, nats a token.

    Passes of at most `max_tokens` (0: what memory allows), whose layers compute in `dtype`, add up to exactly the
    gradient of one. Of several processes each adds the gradient of its shard (`distributed`), and returns its share of
    the mean; `sharded` they make equally many passes.
    """
    lm = predict.lm
    tokens, total = sum(len(answer) for _, answer in pairs), torch.zeros((), device=lm.device)
    own, weighs = distributed.shard(pairs)
    groups = packer.passes([[pair] for pair in own], max_tokens or _budget(lm, dtype))
    for group, counts in distributed.passes(groups, weighs, "a step of fine-tuning", in_step=sharded):
        packed = packer.pack([own[index] for index in group])
        with precision.computing(lm.device, dtype):
            _, logprobs_N, _ = predict(packed)
        loss = -counts * logprobs_N.sum() / tokens
        loss.backward()
        total = total + loss.detach()
    return total.item()


def layer_type(dtype: Dtype, device: torch.device, model_dir: Path) -> torch.dtype:
    """What rank 0 chooses, where several share the steps: each would measure for itself."""
    chosen = precision.choose(dtype, device, trunk.read_config(model_dir))
    if distributed.alone():
        return chosen
    return getattr(torch, distributed.texts(precision.name(chosen), "the type that layers compute in")[0])


def _budget(lm: trunk.PreTrainedModel, dtype: torch.dtype) -> int:
    """Besides the gradients that a step begins without, of what this process holds."""
    needed = sum(sharding.piece(parameter).nbytes for parameter in lm.parameters() if parameter.grad is None)
    return trunk.token_budget(lm, MICRO_BATCH_TOKENS, trunk.free_room(lm.device, needed), dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Demonstrations in tokens. `left_out` says of each that cannot be learned why; `rendered` counts the prompts that
    were served in another model's tokens, and are learned as this model's chat template renders their messages."""

    pairs: list[Pair]
    left_out: list[str]
    rendered: int


def to_pairs(
    demonstrations: Sequence[Demonstration], tokenizer: ChatTokenizer, context: int, vocabulary: int
) -> Prepared:
    """The demonstrations in tokens: what was served by its own tokens, wherever they are of this tokenizer.

    Raises InvalidInput if none can be learned, and for a tokenizer that is not the model's.
    """
    pairs: list[Pair] = []
    left_out: list[str] = []
    rendered = 0
    for item in demonstrations:
        as_served = tokenizer.wrote(item.served, item.messages)
        try:
            prompt = item.served if as_served else tokenizer.prompt_ids(item.messages, item.tools)
            if item.answer.get("tool_calls"):
                answer = tokenizer.call_ids(item.messages, item.answer, item.tools)
            else:
                answer = tokenizer.answer_ids(text_of(item.answer["content"]))
            pairs.append(fit((prompt, answer), context))
            rendered += bool(item.served) and not as_served
        except InvalidInput as error:
            left_out.append(f"{item.place}: {error}")
    if not pairs:
        raise InvalidInput(
            f"supervised fine-tuning needs at least one demonstration that the model can learn:{listed(left_out)}"
        )
    if any(max((*prompt, *answer)) >= vocabulary for prompt, answer in pairs):
        raise InvalidInput(
            f"the tokenizer knows tokens beyond the model's vocabulary of {vocabulary}: they do not belong together"
        )
    return Prepared(pairs=pairs, left_out=left_out, rendered=rendered)


def _rate(step: int, steps: int) -> float:
    """The learning rate's factor: warm-up, then a cosine to 0."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))
