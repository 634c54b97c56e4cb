"""What models compute in, what their weights are kept in, and what is written of them."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf_online.engine import preflight
from rlhf_online.engine.reading import Reading
from rlhf_online.errors import InvalidInput
from rlhf_online.models import precision
from rlhf_online.models.policy import Policy
from rlhf_online.models.precision import Written
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.models.trunk import Lora
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.optimiser import NamedAdam
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.policy_update import PolicyUpdater

CPU, GPU = torch.device("cpu"), torch.device("cuda")
PAIRS: list[Pair] = [((1, 10, 20, 3), (30, 31, 2)), ((1, 11, 3), (40, 2)), ((1, 12, 21, 22, 23, 3), (50, 51, 52, 53))]
WIDE = SimpleNamespace(hidden_size=512, intermediate_size=1024)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights are float32."""
    folder = tmp_path_factory.mktemp("wide")
    write_tiny_model(folder, weights_seed=3)
    return folder


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, in bfloat16, as most models are published."""
    folder = tmp_path_factory.mktemp("narrow")
    write_tiny_model(folder, weights_seed=3)
    cast(folder, torch.bfloat16)
    return folder


def cast(folder: Path, dtype: torch.dtype, *names: str) -> None:
    """Write these tensors, or all, in another type."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({n: t.to(dtype) if n in names or not names else t for n, t in tensors.items()}, path, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": precision.name(dtype)}))


def types(folder: Path) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in load_file(folder / "model.safetensors").items()}


# What is chosen


def test_a_named_type_is_taken() -> None:
    assert precision.choose("float32", CPU, WIDE) == torch.float32
    assert precision.choose("bfloat16", CPU, WIDE) == torch.bfloat16, "a CPU without units for it computes it, slowly"


def test_a_gpu_without_bfloat16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    with pytest.raises(InvalidInput, match="dtype is 'bfloat16', and Tesla V100 computes none: use 'float32'"):
        precision.choose("bfloat16", GPU, WIDE)
    assert precision.choose("auto", GPU, WIDE) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert precision.choose("auto", GPU, WIDE) == torch.bfloat16


@pytest.mark.parametrize(("units", "faster"), [(True, True), (True, False), (False, True)])
def test_auto_measures_where_the_cpu_has_units_and_the_model_is_wide(
    units: bool, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[int, int, int]] = []
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: units)
    monkeypatch.setattr(precision, "_is_faster", lambda *size: bool(measured.append(size)) or faster)
    assert precision.choose("auto", CPU, WIDE) == (torch.bfloat16 if units and faster else torch.float32)
    assert measured == [(512, 1024, torch.get_num_threads())] * units
    tiny = SimpleNamespace(hidden_size=64, intermediate_size=128)
    assert precision.choose("auto", CPU, tiny) == torch.float32
    assert len(measured) == units, "a product this small is not worth measuring, nor the same twice"


def test_auto_stays_with_what_was_chosen_before_if_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_is_faster", lambda *size: pytest.fail("measured again"))
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: True)
    for kept in ("float32", "bfloat16"):
        assert precision.name(precision.choose("auto", CPU, WIDE, kept)) == kept
    assert precision.choose("float32", CPU, WIDE, "bfloat16") == torch.float32
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: False)
    assert precision.choose("auto", CPU, WIDE, "bfloat16") == torch.float32


def test_the_measurement_leaves_no_trace() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    assert precision._is_faster(256, 512, 1) in (True, False)  # noqa: SLF001
    assert torch.equal(torch.random.get_rng_state(), before) and torch.is_grad_enabled()


# What is computed


def test_layers_compute_in_bfloat16_and_all_that_learns_is_float32(base: Path) -> None:
    policy = Policy.load(base, tuning="full", dtype=torch.bfloat16)
    seen: set[torch.dtype] = set()
    for name, module in policy.lm.named_modules():
        if name.endswith("up_proj"):
            module.register_forward_hook(lambda module, args, out: seen.add(out.dtype))
    outputs = policy.forward(policy.collate(PAIRS), entropies=True)
    (outputs.logprobs_BA.sum() + outputs.values_BA.sum()).backward()
    assert seen == {torch.bfloat16}
    assert outputs.entropies_BA is not None
    tensors = [outputs.logprobs_BA, outputs.values_BA, outputs.entropies_BA, *policy.parameters().values()]
    gradients = [parameter.grad for parameter in policy.lm.parameters() if parameter.grad is not None]
    assert {tensor.dtype for tensor in [*tensors, *gradients]} == {torch.float32}
    assert len(gradients) == len(policy.parameters())


def test_what_bfloat16_computes_is_near_to_float32_and_no_further(base: Path) -> None:
    exact, narrow = (Policy.load(base, tuning="full", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    wide, rounded = (torch.cat([*map(torch.tensor, policy.logprobs(PAIRS))]) for policy in (exact, narrow))
    assert 0 < (wide - rounded).abs().mean() < 0.02
    reward = RewardModel.load(base, tuning="full"), RewardModel.load(base, tuning="full", dtype=torch.bfloat16)
    one, other = (model.utilities(PAIRS) for model in reward)
    assert 0 < (one - other).abs().max() < 0.05 * one.std()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_policy_that_has_learned_nothing_is_its_reference(base: Path, tuning, dtype: torch.dtype) -> None:
    policy = Policy.load(base, tuning=tuning, dtype=dtype)
    assert policy.logprobs(PAIRS) == policy.logprobs(PAIRS, reference=True)


def test_a_probe_is_computed_in_float32_whatever_layers_compute_in(base: Path) -> None:
    sequences = [(*prompt, *answer) for prompt, answer in PAIRS]
    exact, narrow = (Policy.load(base, tuning="full", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert narrow.probe(sequences) == exact.probe(sequences)


# What is learned, and what is written of it


def test_an_update_a_ten_thousandth_of_a_weight_survives(narrow: Path) -> None:
    """No such update can be told from none in bfloat16; the masters hold each, and a hundred show in what is
    written."""
    policy = Policy.load(narrow, tuning="full", dtype=torch.bfloat16)
    weight = policy.parameters()["model.layers.0.mlp.down_proj.weight"]
    with torch.no_grad():
        weight.copy_(weight.sign())
    before = weight.detach().clone()
    adam = NamedAdam({"weight": weight}, betas=(0.9, 0.999), eps=1e-12)
    for number in range(100):
        adam.zero_grad()
        policy.forward(policy.collate(PAIRS)).logprobs_BA.sum().backward()
        adam.step(1e-4)
        if number == 0:
            change = ((weight - before) / before).abs()
            assert torch.allclose(change[weight.grad != 0], torch.tensor(1e-4), rtol=0.01)
            assert torch.equal(weight.bfloat16(), before.bfloat16())
    moved = weight.bfloat16() != before.bfloat16()
    assert moved.float().mean() > 0.9


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_version_is_written_in_the_base_models_type_and_the_masters_stay(
    narrow: Path, tmp_path: Path, tuning
) -> None:
    updater = PolicyUpdater(Policy.load(narrow, tuning=tuning, lora=Lora(4)), PolicyTraining(), 0)
    policy = updater.policy
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters().values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    masters = policy.state()
    sequences = [(*prompt, *answer) for prompt, answer in PAIRS]
    with updater.published():
        policy.write_version(tmp_path / "policy-000001")
        probe = policy.probe(sequences)
    assert all(torch.equal(tensor, masters[name]) for name, tensor in policy.state().items())
    assert policy.probe(sequences) != probe
    if tuning == "full":
        assert types(tmp_path / "policy-000001") == types(narrow)
        preflight.check_full(tmp_path / "policy-000001", reference=narrow, base=narrow, reading=Reading())
    else:
        adapter = load_file(tmp_path / "policy-000001" / "adapter_model.safetensors")
        assert {tensor.dtype for tensor in adapter.values()} == {torch.bfloat16}
        preflight.check_lora(tmp_path / "policy-000001", base=narrow, max_rank=4, reading=Reading())
    again = Policy.load(narrow, tuning=tuning, version=tmp_path / "policy-000001", lora=Lora(4))
    assert again.probe(sequences) == probe, "what was probed is what serves"
    assert {parameter.dtype for parameter in again.parameters().values()} == {torch.float32}


def test_masters_are_back_where_memory_ends_while_they_are_rounded() -> None:
    weights = {name: torch.nn.Parameter(torch.tensor([0.1])) for name in ("one", "other")}

    def written(name: str) -> torch.dtype:
        if name == "other":
            raise torch.OutOfMemoryError
        return torch.bfloat16

    with pytest.raises(torch.OutOfMemoryError), precision.rounded(weights, written):
        pass
    assert weights["one"].item() == torch.tensor(0.1).item()


def test_a_version_of_a_model_of_mixed_types_has_each_tensors_type(tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "policy-000001"
    write_tiny_model(base, weights_seed=3, tied=True)
    kept = ("model.norm.weight", "model.layers.0.mlp.up_proj.weight")
    cast(base, torch.bfloat16, *(name for name in types(base) if name not in kept))
    Policy.load(base, tuning="full").write_version(out)
    assert types(out) == types(base) and set(types(out).values()) == {torch.float32, torch.bfloat16}
    RewardModel.load(base, tuning="full").save(tmp_path / "reward")
    assert types(tmp_path / "reward")["layers.0.mlp.up_proj.weight"] == torch.float32
    assert types(tmp_path / "reward")["layers.0.mlp.gate_proj.weight"] == torch.bfloat16


def test_a_folder_without_weights_says_nothing_of_types_and_a_version_of_such_a_base_is_as_the_first(
    narrow: Path, tmp_path: Path
) -> None:
    write_tiny_model(tmp_path / "base", weights_seed=None)
    assert Written.of(tmp_path / "base") == Written({})
    policy = Policy.load(tmp_path / "base", tuning="full", version=narrow)
    policy.write_version(tmp_path / "next")
    assert set(types(tmp_path / "next").values()) == {torch.bfloat16}


def test_scores_are_normal_once_the_reward_model_is_written_and_read(narrow: Path, tmp_path: Path) -> None:
    pairs: list[Pair] = [((1, 10 + i, 3), (30 + j, 40 - i, 2)) for i in range(6) for j in range(6)]
    model = RewardModel.load(narrow, tuning="full", heads=Heads(members=2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    masters = model.state()
    model.normalise(pairs)
    assert all(torch.equal(tensor, masters[n]) for n, tensor in model.state().items() if n.startswith("reward."))
    model.save(tmp_path / "reward")
    assert set(types(tmp_path / "reward").values()) == {torch.bfloat16}
    again = RewardModel.load(narrow, folder=tmp_path / "reward", tuning="full")
    assert again.scores(pairs).mean().item() == pytest.approx(0, abs=1e-5)
    assert model.scores(pairs).mean().item() != pytest.approx(0, abs=1e-5), "by the masters it is not"
