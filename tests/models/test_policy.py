"""The policy: log-probabilities against transformers' own, padding, the reference, versions on disk, sampling."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rlhf_online.engine import preflight
from rlhf_online.engine.reading import Reading
from rlhf_online.errors import InvalidInput, VersionCorrupt
from rlhf_online.models import trunk
from rlhf_online.models.policy import Policy
from rlhf_online.models.tokens import Pair
from rlhf_online.models.trunk import Lora
from rlhf_online.simulation.tiny_model import write_tiny_model

PAIRS: list[Pair] = [((1, 10, 20, 3), (30, 31, 2)), ((1, 11, 3), (40, 2)), ((1, 12, 21, 22, 23, 3), (50, 51, 52, 53))]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


def _shake(policy: Policy, seed: int = 0, scale: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters().values():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_whole_model(base: Path, temperature: float):
    found = Policy.load(base, tuning="full").logprobs(PAIRS, temperature=temperature)
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    for (prompt, answer), logprobs in zip(PAIRS, found, strict=True):
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            table = (model(ids).logits[0] / temperature).log_softmax(-1)
        expected = [table[len(prompt) - 1 + t, token].item() for t, token in enumerate(answer)]
        assert logprobs == pytest.approx(expected, abs=1e-5)


def test_padding_and_company_change_no_logprob_and_no_value(base: Path):
    policy = Policy.load(base, tuning="full")
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    together = policy.forward(policy.collate(PAIRS), torch.tensor([1.0, 0.5, 2.0]), entropies=True)
    for row, (pair, temperature) in enumerate(zip(PAIRS, (1.0, 0.5, 2.0), strict=True)):
        alone = policy.forward(policy.collate([pair]), temperature, entropies=True)
        size = len(pair[1])
        for name in ("logprobs_BA", "values_BA", "entropies_BA"):
            found_A = getattr(together, name)[row]
            assert torch.allclose(found_A[:size], getattr(alone, name)[0], atol=1e-5) and found_A[:size].all()
            assert not found_A[size:].any()


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_dropout_is_off_while_it_learns(base: Path, tmp_path: Path, tuning):
    shutil.copytree(base, tmp_path / "dropping")
    config = json.loads((base / "config.json").read_text()) | {"attention_dropout": 0.5}
    (tmp_path / "dropping" / "config.json").write_text(json.dumps(config))
    policy = Policy.load(tmp_path / "dropping", tuning=tuning)
    batch = policy.collate(PAIRS)
    assert policy.forward(batch).logprobs_BA.requires_grad
    assert torch.equal(policy.forward(batch).logprobs_BA, policy.forward(batch).logprobs_BA)
    policy.lm.train()
    assert not torch.equal(policy.forward(batch).logprobs_BA, policy.forward(batch).logprobs_BA), "this one would drop"


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_reference_is_the_start_and_stays(base: Path, tuning):
    policy = Policy.load(base, tuning=tuning)
    start = policy.logprobs(PAIRS)
    assert policy.logprobs(PAIRS, reference=True) == start, "KL is 0 at step zero"
    _shake(policy)
    assert policy.logprobs(PAIRS) != start
    assert policy.logprobs(PAIRS, reference=True) == start


def test_the_reference_is_another_version_where_one_is_named(base: Path, tmp_path: Path):
    policy = Policy.load(base, tuning="full")
    start = policy.logprobs(PAIRS)
    _shake(policy)
    policy.write_version(tmp_path / "next")
    again = Policy.load(base, tuning="full", version=tmp_path / "next", reference=base)
    assert again.logprobs(PAIRS) == policy.logprobs(PAIRS)
    assert again.logprobs(PAIRS, reference=True) == start


def test_a_full_version_is_a_complete_model_folder(base: Path, tmp_path: Path):
    policy = Policy.load(base, tuning="full")
    _shake(policy)
    policy.write_version(tmp_path)
    stored, original = load_file(tmp_path / "model.safetensors"), load_file(base / "model.safetensors")
    assert {n: (t.shape, t.dtype) for n, t in stored.items()} == {n: (t.shape, t.dtype) for n, t in original.items()}
    assert not torch.equal(stored["lm_head.weight"], original["lm_head.weight"])
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (base / name).read_bytes()


def test_tied_embeddings_are_stored_once_and_come_back(tmp_path: Path):
    base = tmp_path / "base"
    write_tiny_model(base, weights_seed=None)
    config = json.loads((base / "config.json").read_text()) | {"tie_word_embeddings": True}
    (base / "config.json").write_text(json.dumps(config))
    model = AutoModelForCausalLM.from_config(trunk.random_lm(base, seed=1, device=torch.device("cpu")).config)
    model.save_pretrained(tmp_path / "weights")
    (tmp_path / "weights" / "model.safetensors").rename(base / "model.safetensors")
    policy = Policy.load(base, tuning="full")
    _shake(policy)
    policy.write_version(tmp_path / "next")
    assert "lm_head.weight" not in load_file(tmp_path / "next" / "model.safetensors")
    again = Policy.load(base, tuning="full", version=tmp_path / "next")
    assert again.logprobs(PAIRS) == policy.logprobs(PAIRS)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_an_output_layer_that_a_tied_base_holds_is_written_too(tmp_path: Path, noise: float):
    """Equal to the embedding it is tied, and a copy; different it is a layer of its own, whatever config.json says.

    An engine on such a base has memory for both, and would keep an output layer that a version leaves out.
    """
    base = tmp_path / "base"
    write_tiny_model(base, weights_seed=3, tied=True)
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + noise
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    policy = Policy.load(base, tuning="full")
    _shake(policy)
    policy.write_version(tmp_path / "next")
    stored = load_file(tmp_path / "next" / "model.safetensors")
    assert stored.keys() == tensors.keys()
    assert torch.equal(stored["lm_head.weight"], stored["model.embed_tokens.weight"]) == (not noise)
    preflight.check_full(tmp_path / "next", reference=base, base=base, reading=Reading())
    again = Policy.load(base, tuning="full", version=tmp_path / "next")
    assert again.logprobs(PAIRS) == policy.logprobs(PAIRS)


def test_an_adapter_comes_back_and_names_no_place(base: Path, tmp_path: Path):
    policy = Policy.load(base, tuning="lora", lora=Lora(4))
    assert all("lora_" in name for name in policy.parameters())
    _shake(policy)
    policy.write_version(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    text = (tmp_path / "adapter_config.json").read_text()
    config = json.loads(text)
    assert str(base) not in text and config["r"] == 4 and config["base_model_name_or_path"] == ""
    linear = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert config["target_modules"] == linear
    names = load_file(tmp_path / "adapter_model.safetensors")
    assert len(names) == 2 * 7 * 2 and "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight" in names
    again = Policy.load(base, tuning="lora", version=tmp_path, lora=Lora(16))
    assert again.logprobs(PAIRS) == policy.logprobs(PAIRS)


def test_the_reference_may_be_another_version_of_an_adapter(base: Path, tmp_path: Path):
    policy = Policy.load(base, tuning="lora", lora=Lora(4))
    start = policy.logprobs(PAIRS)
    _shake(policy)
    before = policy.logprobs(PAIRS)
    policy.write_version(tmp_path / "before")
    _shake(policy, seed=1)
    policy.write_version(tmp_path / "now")
    again = Policy.load(base, tuning="lora", version=tmp_path / "now", reference=tmp_path / "before", lora=Lora(4))
    assert again.logprobs(PAIRS, reference=True) == before
    assert again.logprobs(PAIRS) == policy.logprobs(PAIRS), "the policy itself is as it was"
    assert policy.logprobs(PAIRS, reference=True) == start
    _shake(again, seed=2)
    assert again.logprobs(PAIRS, reference=True) == before
    Policy.load(base, tuning="lora", lora=Lora(8)).write_version(tmp_path / "other")
    with pytest.raises(VersionCorrupt, match="another rank"):
        Policy.load(base, tuning="lora", version=tmp_path / "now", reference=tmp_path / "other")


def test_a_version_without_adapter_is_the_base_model(base: Path, tmp_path: Path):
    genesis = Policy.load(base, tuning="lora", version=tmp_path)
    assert genesis.logprobs(PAIRS) == Policy.load(base, tuning="full").logprobs(PAIRS)


def test_the_same_seed_gives_the_same_adapter_and_leaves_torchs_generator(base: Path):
    before = torch.get_rng_state()
    one, two = (Policy.load(base, tuning="lora", seed=5).state() for _ in range(2))
    other = Policy.load(base, tuning="lora", seed=6).state()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_state_comes_back(base: Path, tuning):
    policy = Policy.load(base, tuning=tuning)
    _shake(policy)
    torch.nn.init.constant_(policy.value_head.bias, 3.0)
    again = Policy.load(base, tuning=tuning)
    again.load_state(policy.state())
    assert again.logprobs(PAIRS) == policy.logprobs(PAIRS)
    assert again.value_head.bias.item() == 3
    foreign = {name: tensor for name, tensor in policy.state().items() if "layers.1" not in name}
    with pytest.raises(VersionCorrupt, match="another model"):
        again.load_state(foreign)


def test_a_probe_is_what_the_model_says(base: Path):
    policy = Policy.load(base, tuning="full")
    (probe,) = policy.probe([(1, 10, 20, 30)])
    assert probe.token_ids == (1, 10, 20, 30)
    assert probe.logprobs == policy.logprobs([((1,), (10, 20, 30))])[0]


def test_samples_follow_the_models_distribution(base: Path):
    policy = Policy.load(base, tuning="full")
    with torch.no_grad():
        policy.lm.get_parameter("lm_head.weight")[:4] += 0.2
    prompts, count = [(1, 10, 20, 3), (1, 11, 3)], 3000
    answers = policy.sample(prompts * count, max_tokens=1, temperature=0.8, seed=1, eos_ids=(2,))
    for which, prompt in enumerate(prompts):
        firsts = [answer[0] for answer in answers[which::2]]
        for token in range(4):
            share = firsts.count(token) / count
            p = math.exp(policy.logprobs([(prompt, (token,))], temperature=0.8)[0][0])
            assert abs(share - p) <= 4.5 * math.sqrt(p * (1 - p) / count) + 1e-9


def test_samples_end_at_an_end_or_the_limit_and_repeat_with_the_seed(base: Path):
    policy = Policy.load(base, tuning="full")
    prompts = [(1, 10 + i % 30, 3) if i % 2 else (1, 10, 11, 12, 3) for i in range(40)]
    ends = tuple(range(2, 20))
    answers = policy.sample(prompts, max_tokens=5, temperature=1.0, seed=4, eos_ids=ends)
    assert len(answers) == 40 and {len(answer) for answer in answers} == {1, 2, 3, 4, 5}
    for answer in answers:
        assert all(token not in ends for token in answer[:-1])
        assert len(answer) == 5 or answer[-1] in ends
    assert policy.sample(prompts, max_tokens=5, temperature=1.0, seed=4, eos_ids=ends) == answers
    assert policy.sample(prompts, max_tokens=5, temperature=1.0, seed=5, eos_ids=ends) != answers


def test_a_folder_without_weights_is_refused(tmp_path: Path):
    write_tiny_model(tmp_path, weights_seed=None)
    with pytest.raises(InvalidInput, match="safetensors"):
        Policy.load(tmp_path, tuning="full")
    with pytest.raises(InvalidInput, match="safetensors"):
        Policy.load(tmp_path / "nowhere", tuning="full")
