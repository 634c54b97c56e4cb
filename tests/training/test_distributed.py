"""Oracle 8: N gloo processes that share a step give the gradient of one; fine-tuning together writes one's model."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlhf_online.config import SftSettings
from rlhf_online.simulation.tiny_model import write_tiny_model
from tests.support import shared_step

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


def _torchrun(processes: int, *command: object) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes, "-m"]
    done = subprocess.run(
        [str(part) for part in (*start, *command)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


def _close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (tensor - other[name]).abs().max() <= tolerance, name


def test_n_processes_give_the_gradient_of_one(base: Path, tmp_path: Path):
    """Of every algorithm with a PTX mix, and of supervised fine-tuning; online-dpo's two pairs leave one process of the
    three without work of its own."""
    processes = 3
    _torchrun(processes, "tests.support.shared_step", base, tmp_path)
    alone = shared_step.everything(base)
    assert any(tensor.abs().max() > 1e-3 for tensor in alone.values())
    for rank in range(processes):
        _close(load_file(tmp_path / f"{rank}.safetensors"), alone, 1e-6)


def test_a_shared_fine_tuning_writes_what_one_process_writes(base: Path, tmp_path: Path):
    data = tmp_path / "data.jsonl"
    data.write_text(
        '{"messages": [{"role": "user", "content": "fig"}, {"role": "assistant", "content": "is a fruit"}]}\n'
        '{"messages": [{"role": "user", "content": "owl"}, {"role": "assistant", "content": "is a animal"}]}\n'
        '{"messages": [{"role": "user", "content": "zinc"}, {"role": "assistant", "content": "is a metal"}]}\n'
    )

    def settings(out: str) -> str:
        chosen = {"model": base, "data": data, "out": tmp_path / out, "epochs": 4, "batch": 3, "device": "cpu"}
        return SftSettings.model_validate(chosen | {"threads": 1, "lr": 1e-3}).model_dump_json(exclude_unset=True)

    told = _torchrun(2, "rlhf_online.training.sft", settings("shared")).stdout
    assert told.count("demonstrations in") == 1 and told.count("4/4") == 1
    subprocess.run(
        [sys.executable, "-m", "rlhf_online.training.sft", settings("alone")], cwd=ROOT, check=True, timeout=300
    )
    shared, alone = (load_file(tmp_path / name / "model.safetensors") for name in ("shared", "alone"))
    before = load_file(base / "model.safetensors")
    for name, tensor in alone.items():
        # Adam makes much of the smallest gradients, and so of rounding: a few weights differ more than gradients do.
        assert (shared[name] - tensor).abs().mean() < 1e-3 * (tensor - before[name]).abs().mean(), name
