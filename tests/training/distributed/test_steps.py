"""Oracle 8: N gloo processes that share a step give the gradient of one; fine-tuning together writes one's model."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from structlog.testing import capture_logs
from torch import Tensor, nn

from rlhf_online.config import SftSettings
from rlhf_online.errors import ConfigError, RanksFailed
from rlhf_online.models import sharding, tree_attention
from rlhf_online.models.predictor import Predictor
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training import distributed
from rlhf_online.training.sft import fine_tuning
from tests.support import ranks, shared_step

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


def rank() -> int:
    return int(os.environ["RANK"])


def _torchrun(processes: int, *command: object) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes, "-m"]
    done = subprocess.run(
        [str(part) for part in (*start, *command)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def alone(base: Path) -> dict[str, Tensor]:
    return shared_step.everything(base)


@pytest.mark.parametrize("processes", [2, 3])
def test_n_processes_give_the_gradient_of_one(processes: int, base: Path, alone: dict[str, Tensor]) -> None:
    """In float64, of every algorithm with a PTX mix, of votes of all kinds, of both tunings and of supervised
    fine-tuning, and all that is said of them; online-dpo's two pairs, or one vote, leave processes without work."""
    assert sum(tensor.numel() > 0 and bool(tensor.abs().max() > 1e-3) for tensor in alone.values()) > len(alone) / 3
    for found in ranks.run(processes, shared_step.together, base):
        assert found.keys() == alone.keys()
        for name, tensor in alone.items():
            assert torch.allclose(found[name], tensor, rtol=0, atol=1e-6), name


@pytest.mark.parametrize("processes", [2, 3])
def test_n_processes_that_keep_pieces_give_the_gradient_of_one(
    processes: int, base: Path, alone: dict[str, Tensor]
) -> None:
    """The same of models that are sharded: what a checkpoint would hold is whole in rank 0, and there alone."""
    first, *others = ranks.run(processes, shared_step.together, base, True)
    assert first.keys() == alone.keys(), first
    for name, tensor in alone.items():
        assert torch.allclose(first[name], tensor, rtol=0, atol=1e-6), name
    pieces = [name for name in alone if (".model." in name or ".trunk." in name) and " lora." not in name]
    assert len(pieces) > len(alone) / 3 and all(others[0][name].numel() == 0 for name in pieces)


@pytest.mark.parametrize("spread", ["none", "full"])
def test_a_shared_fine_tuning_writes_what_one_process_writes(spread: str, base: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(
        '{"messages": [{"role": "user", "content": "fig"}, {"role": "assistant", "content": "is a fruit"}]}\n'
        '{"messages": [{"role": "user", "content": "owl"}, {"role": "assistant", "content": "is a animal"}]}\n'
        '{"messages": [{"role": "user", "content": "zinc"}, {"role": "assistant", "content": "is a metal"}]}\n'
    )

    def settings(out: str, **other: str) -> str:
        chosen = {"model": base, "data": data, "out": tmp_path / out, "epochs": 4, "batch": 3, "device": "cpu"} | other
        return SftSettings.model_validate(chosen | {"threads": 1, "lr": 1e-3}).model_dump_json(exclude_unset=True)

    told = _torchrun(2, "rlhf_online.training.sft", settings("shared", sharding=spread)).stdout
    assert told.count("demonstrations in") == 1 and told.count("4/4") == 1
    subprocess.run(
        [sys.executable, "-m", "rlhf_online.training.sft", settings("alone")], cwd=ROOT, check=True, timeout=300
    )
    shared, alone = (load_file(tmp_path / name / "model.safetensors") for name in ("shared", "alone"))
    before = load_file(base / "model.safetensors")
    for name, tensor in alone.items():
        # Adam makes much of the smallest gradients, and so of rounding: a few weights differ more than gradients do.
        assert (shared[name] - tensor).abs().mean() < 1e-3 * (tensor - before[name]).abs().mean(), name


def type_of(base: Path) -> torch.dtype:
    """What fine-tuning computes in where each rank's measurement comes out otherwise."""
    fine_tuning.precision.choose = lambda *_: (torch.float32, torch.bfloat16)[rank()]
    with distributed.process_group(CPU, 30.0):
        return fine_tuning.layer_type("auto", CPU, base)


def test_fine_tuning_computes_in_one_type_whatever_each_measures(base: Path) -> None:
    assert ranks.run(2, type_of, base) == [torch.float32, torch.float32]


def room_for_gradients(base: Path) -> tuple[int, int]:
    """What fine-tuning reckons with in this process, and the bytes of all gradients."""
    asked: list[int] = []
    fine_tuning.trunk.free_room = lambda _, needed: asked.append(needed) or 1 << 30
    with distributed.process_group(CPU, 30.0):
        lm = fine_tuning.trunk.load_lm(base, device=CPU, dtype=torch.float32)
        predict = Predictor(lm.requires_grad_(True))
        whole = sum(parameter.nbytes for parameter in predict.parameters())
        sharding.shard(predict, distributed.mesh(CPU))
        packer = tree_attention.packer(predict.lm, 128)
        fine_tuning.backward(predict, packer, [((1, 10), (12,))], sharded=True)
    return asked[0], whole


def test_fine_tuning_keeps_room_for_the_gradients_of_its_pieces(base: Path) -> None:
    (first, whole), (second, _) = ranks.run(2, room_for_gradients, base)
    assert first + second == whole


def in_a_group(work: Any) -> Any:
    with distributed.process_group(CPU, 30.0), capture_logs() as logs:
        return globals()[work](), logs


def test_a_process_on_its_own_does_it_all_itself() -> None:
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    assert distributed.shard([1, 2, 3]) == ([1, 2, 3], 1.0)
    assert distributed.all_reduce([weight], {"loss": 0.5}) == {"loss": 0.5} and weight.grad.item() == 1.0
    assert distributed.together(lambda: "done", "") == "done"
    assert distributed.rows("abc", lambda items: torch.ones(len(items)), "").tolist() == [1.0, 1.0, 1.0]


def shares() -> list[Any]:
    return [distributed.shard("abcde"), distributed.shard("ab")]


def test_every_process_has_its_share() -> None:
    found = [shared for shared, _ in ranks.run(3, in_a_group, "shares")]
    assert [first for first, _ in found] == [("ad", 1.0), ("be", 1.0), ("c", 1.0)]
    assert [second for _, second in found] == [("a", 1.0), ("b", 1.0), ("a", 0.0)], "a placeholder counts 0"


def gradients() -> Any:
    """Rank 0 alone has a gradient for the second parameter, and nobody has one for the third."""
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.full((2,), 1.0 + rank())
    if rank() == 0:
        parameters[1].grad = torch.full((2,), 5.0)
    figures = distributed.all_reduce(iter(parameters), {"loss": 0.5 + rank(), "kl": 1.0})
    return figures, [None if each.grad is None else each.grad.tolist() for each in parameters]


def test_gradients_are_summed_also_where_only_others_have_one() -> None:
    for found, logs in ranks.run(2, in_a_group, "gradients"):
        assert found == ({"loss": 2.0, "kl": 2.0}, [[3.0, 3.0], [5.0, 5.0], None])
        assert logs == []


def nan_gradient() -> Any:
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.full((2,), float("nan") if rank() == 1 else 1.0)
    return distributed.all_reduce([weight], {"loss": 1.0}), weight.grad.isnan().all().item()


def nan_row() -> Any:
    rows = distributed.rows(
        [0, 1, 2], lambda items: torch.tensor([float("nan") if i == 2 else float(i) for i in items]), "it"
    )
    return rows[:2].tolist(), rows[2].isnan().item()


@pytest.mark.parametrize(
    ("work", "found", "step"),
    [("nan_gradient", ({"loss": 2.0}, True), "a step"), ("nan_row", ([0.0, 1.0], True), "it")],
)
def test_a_number_that_is_not_finite_on_one_rank_is_so_on_all_and_the_rank_is_named(
    work: str, found: Any, step: str
) -> None:
    (first, logs), (second, silent) = ranks.run(2, in_a_group, work)
    assert first == second == found and silent == []
    (line,) = logs
    assert line["log_level"] == "warning" and line["ranks"].startswith("rank 1 (") and line["step"] == step


def fails() -> Any:
    def work(error: Exception) -> str:
        if rank() == 1:
            raise error
        return "done"

    found = []
    for error in (torch.OutOfMemoryError("of its own"), ValueError("of its own")):
        try:
            distributed.together(partial(work, error), "some work")
        except (RuntimeError, ValueError, RanksFailed) as raised:
            found.append(raised)
    return found


def test_pinned_memory_that_is_not_to_be_had_is_no_memory() -> None:
    """As c10_cuda_check_implementation puts together what cudaHostAlloc returns."""
    assert distributed.out_of_memory(torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"))
    assert not distributed.out_of_memory(torch.AcceleratorError("CUDA error: invalid argument"))


def test_what_fails_in_one_process_fails_in_all() -> None:
    (first, _), (second, _) = ranks.run(2, in_a_group, "fails")
    assert [str(error) for error in second] == ["of its own", "of its own"]
    assert distributed.out_of_memory(first[0]) and "rank 1 (" in str(first[0]) and "some work" in str(first[0])
    assert isinstance(first[1], RanksFailed) and "rank 1 (" in str(first[1]) and "failed at some work" in str(first[1])


def padded() -> list[Any]:
    own = ["a", "b"][: 1 + rank()]
    return [distributed.passes(own, 1.0, "a step", in_step=in_step) for in_step in (True, False)]


def test_processes_in_step_make_equally_many_passes() -> None:
    (first, _), (second, _) = ranks.run(2, in_a_group, "padded")
    assert first == [[("a", 1.0), ("a", 0.0)], [("a", 1.0)]], "a placeholder counts 0"
    assert second == [[("a", 1.0), ("b", 1.0)]] * 2
    assert distributed.passes(["a"], 1.0, "a step", in_step=True) == [("a", 1.0)]


def ends_in_a_pass(fault: str) -> None:
    with distributed.process_group(CPU, 3.0):
        layer = nn.Linear(4, 4)
        sharding.shard(layer, distributed.mesh(CPU))

        def work() -> Tensor:
            if rank() == 1 and fault == "is out of memory":
                raise torch.OutOfMemoryError("of its own")
            if rank() == 1:
                os.kill(os.getpid(), {"is killed": signal.SIGKILL, "stands still": signal.SIGSTOP}[fault])
            return layer(torch.ones(2, 4)).sum()

        distributed.together(work, "some step", in_step=True)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("is killed", r"^an exchange of weights, shared by 2 ranks: rank 1 \(.*\) ended"),
        ("is out of memory", r"^an exchange of weights, shared by 2 ranks: rank 1 \(.*\) (ended|failed, and says why)"),
        ("stands still", r"^an exchange of weights, shared by 2 ranks: .*Nothing of this update"),
    ],
)
def test_a_rank_that_does_not_come_through_a_pass_ends_all(fault: str, said: str) -> None:
    first, second = ranks.run(2, ends_in_a_pass, fault)
    with pytest.raises(RanksFailed, match=said):
        raise first
    if fault == "is out of memory":
        with pytest.raises(ConfigError, match=r"^out of memory at some step, where .* set recompute = true"):
            raise second
    else:
        assert second is signal.SIGKILL


def test_a_fingerprint_changes_with_every_bit() -> None:
    tensors = {"a": torch.zeros(3), "b": torch.ones(2, dtype=torch.bfloat16), "c": torch.tensor(1.0)}
    before = distributed.fingerprint(tensors)
    assert distributed.fingerprint({name: tensor.clone() for name, tensor in tensors.items()}) == before
    for name in tensors:
        changed = {key: tensor.clone() for key, tensor in tensors.items()}
        bits = changed[name].view({2: torch.int16, 4: torch.int32}[changed[name].element_size()])
        bits.reshape(-1)[0] += 1
        assert distributed.fingerprint(changed) != before
    assert distributed.fingerprint({}) == distributed.fingerprint({}) != before
