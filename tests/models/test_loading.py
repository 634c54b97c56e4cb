"""transformers' loading report is read: what no file holds is refused by name, what may be new passes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from rlhf_online.errors import InvalidInput
from rlhf_online.models import trunk
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.simulation.tiny_model import write_tiny_model

CPU = torch.device("cpu")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_tiny_model(tmp_path / "base", weights_seed=0)
    return tmp_path / "base"


def lose(folder: Path, *names: str) -> None:
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if name not in names}
    save_file(kept, path, metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "lm_head.weight"])
def test_a_missing_tensor_is_named(base: Path, name: str) -> None:
    lose(base, name)
    with pytest.raises(InvalidInput, match=f"lack {name}: fetch or convert"):
        Policy.load(base, tuning="full")
    with pytest.raises(InvalidInput, match=f"lack {name}: fetch or convert"):
        RewardModel.load(base, tuning="lora")


def test_many_missing_tensors_are_counted(base: Path) -> None:
    lose(base, *[name for name in load_file(base / "model.safetensors") if "layers.1" in name])
    with pytest.raises(InvalidInput, match=r"lack (model\.layers\.1\.\S+, ){2}model\.layers\.1\.\S+ and 6 more: fetch"):
        trunk.load_lm(base, device=CPU, dtype=torch.float32)


def test_a_reward_models_own_trunk_has_no_language_head_and_is_whole(base: Path, tmp_path: Path) -> None:
    RewardModel.load(base, tuning="full").save(tmp_path / "reward")
    assert "lm_head.weight" not in load_file(tmp_path / "reward" / "model.safetensors")
    RewardModel.load(base, folder=tmp_path / "reward", tuning="full")
    lose(tmp_path / "reward", "norm.weight")
    with pytest.raises(InvalidInput, match=r"lack norm\.weight"):
        RewardModel.load(base, folder=tmp_path / "reward", tuning="full")


def test_tensors_of_another_size_are_refused(base: Path) -> None:
    path = base / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:10].clone()
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match=r"cannot be loaded"):
        trunk.load_lm(base, device=CPU, dtype=torch.float32)


def test_models_loaded_by_several_threads_at_once_leave_tied_models_tied(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, weights_seed=0, tied=True)
    tie_weights = PreTrainedModel.tie_weights
    with ThreadPoolExecutor(4) as threads:
        loads = [threads.submit(trunk.load_lm, tmp_path, device=CPU, dtype=torch.float32) for _ in range(40)]
        loads += [threads.submit(trunk.random_lm, tmp_path, seed=0, device=CPU) for _ in range(40)]
    models = [load.result() for load in loads]
    assert all(trunk.output_head(model).weight is model.get_input_embeddings().weight for model in models)
    assert PreTrainedModel.tie_weights is tie_weights and torch.get_default_dtype() == torch.float32
