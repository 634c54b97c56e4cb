"""Oracle 8: N gloo processes that share a step give the gradient of one; fine-tuning together writes one's model."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from rlhf_online.config import SftSettings
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training import distributed
from tests.support import shared_step

CPU = torch.device("cpu")
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


class Group:
    """A process group of which this is one process: `calls` are what was asked of torch, `reduce` is what the others
    make of a tensor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, rank: int = 0, size: int = 2) -> None:
        self.calls: list[str] = []
        self.reduce: Callable[[torch.Tensor], object] = lambda tensor: tensor.mul_(size)
        torchs = SimpleNamespace(
            is_initialized=lambda: True,
            get_rank=lambda: rank,
            get_world_size=lambda: size,
            init_process_group=lambda backend: self.calls.append(backend),
            barrier=lambda: self.calls.append("barrier"),
            destroy_process_group=lambda: self.calls.append("destroy"),
            all_reduce=lambda tensor: self.reduce(tensor),
        )
        monkeypatch.setattr(distributed, "distributed", torchs)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: self.calls.append(str(device)))
        monkeypatch.setenv("WORLD_SIZE", str(size))
        monkeypatch.setenv("LOCAL_RANK", "3")


def test_a_process_on_its_own_joins_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.process_group(CPU) as device:
        assert device == CPU and distributed.is_main_process()
        assert distributed.shard([1, 2, 3]) == ([1, 2, 3], 1.0)
        weight = nn.Parameter(torch.ones(1))
        weight.grad = torch.ones(1)
        assert distributed.all_reduce([weight], {"loss": 0.5}) == {"loss": 0.5} and weight.grad.item() == 1.0
    group = Group(monkeypatch, size=1)
    with distributed.process_group(CPU):
        pass
    assert group.calls == [], "nor does the only one that torchrun started"


@pytest.mark.parametrize(
    ("kind", "own", "joined"), [("cpu", CPU, ["gloo"]), ("cuda", torch.device("cuda", 3), ["cuda:3", "nccl"])]
)
def test_a_group_ends_together_unless_one_of_its_processes_fails(
    kind: str, own: torch.device, joined: list[str], monkeypatch: pytest.MonkeyPatch
):
    group = Group(monkeypatch)
    with distributed.process_group(torch.device(kind)) as device:
        assert (device, group.calls) == (own, joined)
    assert group.calls == [*joined, "barrier", "destroy"]
    group.calls.clear()
    with pytest.raises(ValueError, match="of our own"), distributed.process_group(torch.device(kind)):
        raise ValueError("of our own")
    assert group.calls == [*joined, "destroy"], "it waits for nobody: they would wait for it"


def test_every_process_has_its_share_and_the_first_is_the_main_one(monkeypatch: pytest.MonkeyPatch):
    shares = []
    for rank in range(3):
        Group(monkeypatch, rank=rank, size=3)
        assert distributed.is_main_process() == (rank == 0)
        shares.append(distributed.shard("abcde"))
        assert distributed.shard("ab") == (("a", 0.0) if rank == 2 else ("ab"[rank], 1.0)), "a placeholder counts 0"
    assert shares == [("ad", 1.0), ("be", 1.0), ("c", 1.0)]


@pytest.mark.parametrize("other_reached", [False, True])
def test_gradients_are_summed_also_where_only_others_have_one(other_reached: bool, monkeypatch: pytest.MonkeyPatch):
    """The other process has a gradient of 2 for each parameter that it has one for, and twice these figures."""
    group = Group(monkeypatch)
    reached, missed = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    reached.grad = torch.ones(2)
    reduced: list[torch.Tensor] = []

    def reduce(tensor: torch.Tensor) -> None:
        if not reduced:
            assert tensor.tolist() == [1.0, 0.0], "who has a gradient is asked first"
            tensor += torch.tensor([1.0, float(other_reached)])
        elif tensor.dtype == torch.float64:
            tensor *= 3
        else:
            tensor += 2
        reduced.append(tensor)

    group.reduce = reduce
    figures = distributed.all_reduce(iter([reached, missed]), {"loss": 0.5, "kl": 1.0})
    assert figures == {"loss": 1.5, "kl": 3.0}
    assert reached.grad.tolist() == [3.0, 3.0]
    assert (missed.grad is None) == (not other_reached)
    assert missed.grad is None or missed.grad.tolist() == [2.0, 2.0]
