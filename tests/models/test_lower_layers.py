"""What layers below an adapter say of a sequence is computed once, and nothing else changes."""

import json
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen3Config,
)

from rlhf_online.models import lower_layers, tree_attention, trunk
from rlhf_online.models.comparison import compare
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.models.trunk import Lora
from rlhf_online.simulation.tiny_model import write_tiny_model

SMALL: dict[str, Any] = {"vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 3}
HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24, "head_dim": 8}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


def _pairs(count: int = 24) -> list[Pair]:
    """Four answers to each prompt, of which one is empty, and prompts that begin alike."""
    rng = random.Random(0)

    def ids(most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, 78) for _ in range(rng.randint(1, most)))

    prompts = [(1, 9, 8, 7, *ids(8)) for _ in range(count // 4)]
    return [(prompt, answer) for prompt in prompts for answer in (ids(9), ids(9), (), ids(9))]


def _shake(parameters: dict[str, torch.nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.1)


def _equal(one: Tensor, other: Tensor) -> bool:
    """To a millionth, to which transformers' RMSNorm rounds whatever the type."""
    return bool((one - other).norm() <= 1e-6 * one.norm())


@contextmanager
def _calls(layer: torch.nn.Module) -> Iterator[list[int]]:
    """How often a layer computes."""
    found: list[int] = []
    hook = layer.register_forward_hook(lambda *_: found.append(1))
    try:
        yield found
    finally:
        hook.remove()


def _policy(base: Path) -> Policy:
    policy = Policy.load(base, tuning="lora", lora=Lora(layers=1), dtype=torch.float64)
    policy.value_head.double()
    torch.nn.init.ones_(policy.value_head.weight)
    _shake(policy.parameters())
    return policy


def _said(policy: Policy, groups: list[list[Pair]]) -> list[Tensor]:
    """Log-probabilities, reference and values of each pair, and the gradient of them all."""
    found: dict[Pair, Tensor] = {}
    for group in groups:
        batch = policy.collate(group)
        outputs, compared = policy.forward(batch), compare(policy, batch)
        said_B3A = torch.stack([outputs.logprobs_BA, compared.reference_BA + compared.kl_BA, outputs.values_BA], 1)
        said_B3A.square().sum().backward()
        for pair, said_3A in zip(group, said_B3A.detach(), strict=True):
            found[pair] = said_3A[:, : len(pair[1])]
    gradients = [parameter.grad for parameter in policy.parameters().values() if parameter.grad is not None]
    policy.lm.zero_grad()
    return [*(found[pair] for pair in sorted(found)), *(gradient.clone() for gradient in gradients)]


@pytest.mark.parametrize("trees", [True, False])
def test_a_policy_says_and_learns_the_same_of_batches_that_are_cut_anew(base: Path, trees: bool) -> None:
    policy, pairs = _policy(base), _pairs()
    if not trees:
        policy.packer = type(policy.packer)(trees=False, spans=False, context=128, device=policy.device)
    expected = _said(policy, [pairs])
    layers = policy.lm.model.layers
    with policy.lower.kept(), _calls(layers[0]) as lower, _calls(layers[-1]) as upper:
        _said(policy, [pairs[:9], pairs[9:]])
        assert len(lower) == 2, "once a batch: the reference is given what the policy computed"
        spared = _said(policy, [pairs[::-2], pairs[::2]])
        assert (len(lower), len(upper)) == (2, 12)
    assert len(expected) == len(spared) > len(pairs)
    for one, other in zip(expected, spared, strict=True):
        assert _equal(one, other)


def test_a_reward_model_says_and_learns_the_same(base: Path) -> None:
    model = RewardModel.load(
        base, tuning="lora", lora=Lora(layers=1), heads=Heads(members=3, readout="mean"), dtype=torch.float64
    )
    model.heads.double()
    _shake(model.parameters())

    def learn(pairs: list[Pair]) -> list[Tensor]:
        utilities_BOK = model.forward(model.packer.pack(pairs))
        utilities_BOK.square().sum().backward()
        gradients = [parameter.grad for parameter in model.parameters().values()]
        found = [gradient.clone() for gradient in gradients if gradient is not None]
        model.decoder.zero_grad()
        model.heads.zero_grad()
        return [utilities_BOK.detach()[torch.tensor(sorted(range(len(pairs)), key=pairs.__getitem__))], *found]

    pairs = _pairs()
    expected = learn(pairs)
    with model.lower.kept(), _calls(model.decoder.get_submodule("layers.0")) as lower:
        learn(pairs)
        again = learn(pairs[::-1])
        assert len(lower) == 1
    for one, other in zip(expected, again, strict=True):
        assert _equal(one, other)


def test_nothing_is_kept_outside_nor_from_one_update_to_the_next(base: Path) -> None:
    policy, batch = _policy(base), None
    with _calls(policy.lm.model.layers[0]) as lower:
        for _ in range(2):
            batch = policy.collate(_pairs())
            policy.forward(batch)
        assert len(lower) == 2
        for _ in range(2):
            with policy.lower.kept():
                policy.forward(policy.collate(_pairs()))
        assert len(lower) == 4


def test_where_memory_does_not_suffice_for_all_the_rest_is_computed_again(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, pairs = _policy(base), _pairs()
    expected = _said(policy, [pairs])
    monkeypatch.setattr(lower_layers, "KEPT_BYTES", 20_000)
    groups = [pairs[start : start + 2] for start in range(0, len(pairs), 2)]
    with policy.lower.kept(), _calls(policy.lm.model.layers[0]) as lower:
        _said(policy, groups)
        before = len(lower)
        again = _said(policy, groups)
        assert 0 < len(lower) - before < 3 * len(groups)
    for one, other in zip(expected, again, strict=True):
        assert _equal(one, other)


def test_what_the_layers_compute_in_is_told_apart(base: Path) -> None:
    """A probe, in float32, is not given what bfloat16 made of it."""
    policy = Policy.load(base, tuning="lora", lora=Lora(layers=1), dtype=torch.bfloat16)
    pairs = [pair for pair in _pairs() if pair[1]]
    expected = policy.logprobs(pairs, exact=True)
    with policy.lower.kept():
        policy.forward(policy.collate(pairs))
        assert policy.logprobs(pairs, exact=True) == expected


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL, **HEADS),
        Qwen3Config(**SMALL, **HEADS),
        GPT2Config(vocab_size=12, n_embd=16, n_layer=3, n_head=2),
        MistralConfig(**SMALL, **HEADS, sliding_window=2),
        Gemma2Config(**SMALL, **HEADS),
    ],
    ids=lambda config: config.model_type,
)
def test_layers_of_these_models_can_be_spared(config: Any) -> None:
    with trunk.seeded(1):
        lm = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    packer = tree_attention.packer(lm, 64)
    assert tree_attention.lower_layers(lm, packer, torch.float32).count == 0, "all of it learns"
    trunk.add_lora(lm, Lora(2, layers=1), folder=None, seed=0, task="CAUSAL_LM")
    lower = tree_attention.lower_layers(lm, packer, torch.float32)
    assert lower.count == 2


def test_an_adapter_of_all_layers_spares_nothing(base: Path) -> None:
    policy = Policy.load(base, tuning="lora")
    with policy.lower.kept(), _calls(policy.lm.model.layers[0]) as lower:
        for _ in range(2):
            policy.forward(policy.collate(_pairs()))
        assert len(lower) == 2


# What is written


def _numbers(names: Iterable[str]) -> set[str]:
    return {name.split("layers.")[1].split(".")[0] for name in names}


def test_a_version_changes_the_topmost_layers_alone_and_stays_so(base: Path, tmp_path: Path) -> None:
    policy = Policy.load(base, tuning="lora", lora=Lora(layers=1))
    _shake(policy.parameters())
    depth = int(policy.lm.config.num_hidden_layers)
    assert _numbers(policy.parameters()) == {str(depth - 1)}
    policy.write_version(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["layers_to_transform"], config["layers_pattern"]) == ([depth - 1], ["layers"])
    again = Policy.load(base, tuning="lora", version=tmp_path)
    assert again.parameters().keys() == policy.parameters().keys(), (
        "what is live says which layers, as it does its rank"
    )


def test_more_layers_than_there_are_are_all(base: Path, tmp_path: Path) -> None:
    policy = Policy.load(base, tuning="lora", lora=Lora(layers=99))
    assert policy.parameters().keys() == Policy.load(base, tuning="lora").parameters().keys()
    policy.write_version(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["layers_to_transform"] is None


def test_peft_itself_reads_what_is_written(base: Path, tmp_path: Path) -> None:
    policy = Policy.load(base, tuning="lora", lora=Lora(layers=1))
    reward = RewardModel.load(base, tuning="lora", lora=Lora(layers=1))
    for model, folder in ((policy, tmp_path / "policy"), (reward, tmp_path / "reward")):
        _shake({name: each for name, each in model.parameters().items() if "lora" in name})
        model.write_version(folder) if isinstance(model, Policy) else model.save(folder)
    tokens_BT = torch.arange(5, 25).reshape(2, 10)
    for kind, folder, ours in (
        (AutoModelForCausalLM, tmp_path / "policy", policy.lm),
        (AutoModel, tmp_path / "reward", reward.decoder),
    ):
        theirs: PreTrainedModel = kind.from_pretrained(base)
        wrapped = PeftModel.from_pretrained(theirs, str(folder)).eval()
        with torch.no_grad():
            one, other = (each(input_ids=tokens_BT, use_cache=False)[0] for each in (ours, wrapped))
            plain = kind.from_pretrained(base).eval()(input_ids=tokens_BT, use_cache=False)[0]
        assert torch.allclose(one, other, atol=1e-5) and not torch.allclose(one, plain, atol=1e-3)
        assert _numbers({name for name, _ in wrapped.named_parameters() if "lora_A" in name}) == _numbers(
            {name for name, each in ours.named_parameters() if "lora_A" in name}
        )
