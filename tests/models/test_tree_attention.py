"""A model computes of sequences in a tree what it computes of each alone; one that does not is found out."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen3Config,
)

from rlhf_online.models import tree_attention, trunk
from rlhf_online.models.comparison import compare
from rlhf_online.models.packing import Packer, pack
from rlhf_online.models.policy import Policy
from rlhf_online.models.predictor import Predictor
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.sft.fine_tuning import backward

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 2}
HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24, "head_dim": 8}


def _pairs(count: int = 60) -> list[Pair]:
    """Four answers to each prompt, and prompts that begin alike."""
    rng = random.Random(0)

    def ids(most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, 78) for _ in range(rng.randint(1, most)))

    return [((1, 9, 8, 7, *prompt), ids(9)) for prompt in (ids(8) for _ in range(count // 4)) for _ in range(4)]


def _alone(packer: Packer) -> Packer:
    return Packer(trees=False, spans=False, context=packer.context, device=packer.device)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


@pytest.mark.parametrize("max_tokens", [0, 200])
def test_loss_and_gradient_of_demonstrations_are_those_of_each_alone(base: Path, max_tokens: int):
    found = []
    for trees, limit in ((False, 1), (True, max_tokens)):
        lm = trunk.load_lm(base, device=CPU, dtype=torch.float64).requires_grad_(True)
        packer = tree_attention.packer(lm, 128)
        assert packer.trees
        loss = backward(Predictor(lm), packer if trees else _alone(packer), _pairs(), max_tokens=limit)
        found.append((loss, {name: p.grad for name, p in lm.named_parameters()}))
    (alone, gradients), (packed, packed_gradients) = found
    assert packed == pytest.approx(alone, abs=1e-9)
    for name, gradient in gradients.items():
        assert gradient is not None and gradient.abs().max() > 1e-3, name
        assert _equal(gradient, packed_gradients[name]), name


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_what_a_policy_says_and_its_gradient_are_those_of_each_answer_alone(base: Path, tuning: Any):
    pairs, found = _pairs(), []
    weights_BA = torch.randn(60, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for trees in (False, True):
        policy = Policy.load(base, tuning=tuning, dtype=torch.float64)
        _shake(policy.parameters())
        policy.value_head.double()
        torch.nn.init.ones_(policy.value_head.weight)
        if not trees:
            policy.packer = _alone(policy.packer)
        batch = policy.collate(pairs)
        assert (batch.tree is not None) == trees
        outputs = policy.forward(batch, 0.7, entropies=True)
        assert outputs.entropies_BA is not None
        said = (outputs.logprobs_BA, outputs.values_BA, outputs.entropies_BA)
        torch.stack(
            [(weights_BA * tensor_BA).sum() * (1 + place) for place, tensor_BA in enumerate(said)]
        ).sum().backward()
        gradients = [p.grad for p in (*policy.parameters().values(), *policy.value_head.parameters())]
        found.append((*said, policy.reference_logprobs(batch), compare(policy, batch, 0.7).kl_BA, *gradients))
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 1e-3 and _equal(one, other)


@pytest.mark.parametrize("readout", ["last", "mean"])
def test_utilities_and_their_gradient_are_those_of_each_answer_alone(base: Path, readout: Any):
    found = []
    for trees in (False, True):
        model = RewardModel.load(base, tuning="full", heads=Heads(members=3, readout=readout), dtype=torch.float64)
        model.heads.double()
        if not trees:
            model.packer = _alone(model.packer)
        utilities_BOK = model.forward(model.packer.pack([*_pairs(), ((1, 9), ())]))
        utilities_BOK.square().sum().backward()
        found.append((utilities_BOK, *(p.grad for p in model.parameters().values())))
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 1e-6 and _equal(one, other)


@pytest.mark.parametrize(
    ("config", "exact"),
    [
        (LlamaConfig(**SMALL, **HEADS), True),
        (Qwen3Config(**SMALL, **HEADS), True),
        (GPT2Config(vocab_size=12, n_embd=16, n_layer=2, n_head=2), True),
        (MistralConfig(**SMALL, **HEADS, sliding_window=2), True),
        (Gemma2Config(**SMALL, **HEADS), False),
        (MambaConfig(**SMALL, state_size=4, expand=1), False),
        (BloomConfig(vocab_size=12, hidden_size=16, n_layer=2, n_head=2), False),
        (FalconConfig(**SMALL, num_attention_heads=2, alibi=True), False),
    ],
    ids=lambda value: getattr(value, "model_type", str(value)),
)
def test_a_model_whose_layers_remember_or_attend_otherwise_reads_one_sequence_a_row(config: Any, exact: bool):
    """Gemma 2 caps its attention's logits, others make biases of a mask of two dimensions."""
    with trunk.seeded(1):
        lm = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    _shake(dict(lm.named_parameters()), 0.5)
    before = _attention(lm)
    packer = tree_attention.packer(lm, 64)
    assert packer.trees == exact
    assert _attention(lm) == (tree_attention.NAME if exact else before)
    pairs: list[Pair] = [((1, 2, 3, 4, 5), (6, 7)), ((1, 2, 3, 4, 5), (8, 9, 10)), ((1, 2), (3, 4, 4))]
    packed, alone = packer.pack(pairs), pack(pairs, width=0, pad_id=0)
    decoder = getattr(lm, lm.base_model_prefix)
    with torch.no_grad():
        one, other = (tree_attention.hidden_states(decoder, batch)[batch.before_N] for batch in (packed, alone))
    assert torch.allclose(one, other, atol=1e-4), "windows included"


@pytest.mark.parametrize("window", [None, 3])
def test_spans_ask_of_a_kernel_what_a_mask_would_show(window: int | None, monkeypatch: pytest.MonkeyPatch):
    """The kernel as its documentation defines it, in the place of a GPU's; values and gradients."""
    monkeypatch.setattr(tree_attention, "varlen_attn", _varlen)
    with trunk.seeded(1):
        lm = AutoModelForCausalLM.from_config(
            MistralConfig(**SMALL | {"vocab_size": 78}, **HEADS, sliding_window=window)
        )
    assert tree_attention.adopt(lm.eval())
    found = []
    for spans in (True, False):
        lm.zero_grad()
        packed = pack(_pairs(), width=None, pad_id=0, spans=spans)
        hidden_Nd = tree_attention.hidden_states(lm.model, packed)[packed.before_N]
        (hidden_Nd * torch.arange(hidden_Nd.numel()).sin().view_as(hidden_Nd)).sum().backward()
        found.append([hidden_Nd.detach(), *(p.grad for p in lm.model.parameters())])
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 1e-3 and torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_padding_stands_at_places_that_the_model_knows():
    """Rows of a wide model are longer than its context."""
    config = GPT2Config(vocab_size=12, n_embd=128, n_layer=1, n_head=2, n_positions=16)
    packer = tree_attention.packer(AutoModelForCausalLM.from_config(config).eval(), 16)
    packed = packer.pack([((number,) * 13, (1, 2)) for number in range(1, 6)])
    assert packed.tokens_RT.shape == (2, 60) and packed.tree is not None
    assert int(packed.tree.position_RT.max()) == 14


def test_a_whole_sequence_of_a_sampler_is_seen_as_ever(base: Path):
    """Left padding and a cache, as sampling has them."""
    lm = trunk.load_lm(base, device=CPU, dtype=torch.float32)
    ids_BT = torch.tensor([[0, 0, 1, 10, 3], [1, 12, 20, 30, 3]])
    seen_BT = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    positions_BT = (seen_BT.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        before = lm(input_ids=ids_BT, attention_mask=seen_BT, position_ids=positions_BT).logits
        assert tree_attention.adopt(lm)
        after = lm(input_ids=ids_BT, attention_mask=seen_BT, position_ids=positions_BT).logits
    assert torch.equal(before, after)


def _varlen(
    query_THd: torch.Tensor,
    key_KHd: torch.Tensor,
    value_KHd: torch.Tensor,
    cu_queries: torch.Tensor,
    cu_keys: torch.Tensor,
    longest_query: int,
    longest_key: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    """`torch.nn.attention.varlen`: the last query of a sequence stands at its last key."""
    assert cu_queries.dtype == cu_keys.dtype == torch.int32
    assert (int(cu_queries.diff().max()), int(cu_keys.diff().max())) == (longest_query, longest_key)
    found = []
    asked, shown = cu_queries.tolist(), cu_keys.tolist()
    for begin, end, first, last in zip(asked, asked[1:], shown, shown[1:], strict=False):
        back_qk = torch.arange(last - first - (end - begin), last - first).unsqueeze(1) - torch.arange(last - first)
        seen_qk = (back_qk >= -window_size[1]) & ((back_qk <= window_size[0]) | (window_size[0] < 0))
        query, key, value = (
            tensor.transpose(0, 1) for tensor in (query_THd[begin:end], key_KHd[first:last], value_KHd[first:last])
        )
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, seen_qk, scale=scale, enable_gqa=enable_gqa
        )
        found.append(out.transpose(0, 1))
    return torch.cat(found)


def _equal(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    """To a millionth: transformers' RMSNorm rounds to float32 whatever the type, and so does its gradient."""
    return other is not None and bool((one - other).norm() <= 1e-6 * one.norm())


def _attention(lm: Any) -> str:
    return getattr(lm.config, "_attn_implementation", "")


def _shake(parameters: dict[str, torch.nn.Parameter], scale: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
