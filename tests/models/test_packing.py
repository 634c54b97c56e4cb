"""Packing: nothing is lost, rows are full, and a model gives packed sequences what it gives each alone."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MambaConfig, MistralConfig

from rlhf_online.models import trunk
from rlhf_online.models.packing import is_exact, pack
from rlhf_online.models.tokens import Pair
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.sft.fine_tuning import backward

THREE: list[Pair] = [((1, 2), (3,)), ((4,), (5, 6, 7)), ((8,), (9,))]


def _pairs(count: int = 60) -> list[Pair]:
    rng = random.Random(0)

    def ids(most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, 78) for _ in range(rng.randint(1, most)))

    return [(ids(12), ids(9)) for _ in range(count)]


def test_the_layout_by_hand():
    packed = pack(THREE, width=6, pad_id=0)
    assert packed.tokens_RT.tolist() == [[4, 5, 6, 7, 8, 9], [1, 2, 3, 0, 0, 0]]
    assert packed.position_RT.tolist() == [[0, 1, 2, 3, 0, 1], [0, 1, 2, 0, 1, 2]]
    assert packed.answer_N.tolist() == [5, 6, 7, 9, 3]
    assert list(zip(packed.row_N.tolist(), packed.before_N.tolist(), strict=True)) == [
        (0, 0), (0, 1), (0, 2), (0, 4), (1, 1),
    ]  # fmt: skip
    assert pack(THREE, width=0, pad_id=0).tokens_RT.tolist() == [[4, 5, 6, 7], [1, 2, 3, 0], [8, 9, 0, 0]]


def test_every_answer_is_there_once_and_rows_are_full():
    pairs = _pairs()
    packed = pack(pairs, width=42, pad_id=0)
    assert sorted(packed.answer_N.tolist()) == sorted(token for _, answer in pairs for token in answer)
    total = sum(len(prompt) + len(answer) for prompt, answer in pairs)
    assert total > 0.95 * packed.tokens_RT.numel()
    assert packed.tokens_RT.shape[1] <= 42


@pytest.mark.parametrize("max_tokens", [0, 200])
def test_packed_loss_and_gradient_are_those_of_each_pair_alone(tmp_path: Path, max_tokens: int):
    write_tiny_model(tmp_path, weights_seed=3)
    found = []
    for row_width, limit in ((0, 1), (2, max_tokens)):
        lm = trunk.load_lm(tmp_path, device=torch.device("cpu"), dtype=torch.float64).requires_grad_(True)
        loss = backward(lm, _pairs(), row_width=row_width, pad_id=0, max_tokens=limit)
        found.append((loss, {name: p.grad for name, p in lm.named_parameters()}))
    (alone, gradients), (packed, packed_gradients) = found
    assert packed == pytest.approx(alone, abs=1e-6)
    for name, gradient in gradients.items():
        assert gradient is not None and gradient.abs().max() > 1e-3, name
        assert torch.allclose(gradient, packed_gradients[name], rtol=0, atol=1e-6), name


SMALL: dict[str, Any] = {"vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 2}
HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24}


@pytest.mark.parametrize(
    ("config", "exact"),
    [
        (LlamaConfig(**SMALL, **HEADS), True),
        (MistralConfig(**SMALL, **HEADS, sliding_window=2), True),
        (MambaConfig(**SMALL, state_size=4, expand=1), False),
    ],
    ids=lambda value: getattr(value, "model_type", str(value)),
)
def test_a_model_whose_layers_remember_across_sequences_is_not_packed(config, exact: bool):
    with trunk.seeded(1):
        lm = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(8)
    assert is_exact(lm) == exact
