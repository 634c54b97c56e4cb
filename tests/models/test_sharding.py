"""Pieces of a model in two processes: what each holds, what is put together of them, and what a gathering leaves."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from rlhf_online.errors import ConfigError
from rlhf_online.models import sharding
from rlhf_online.models.comparison import logprobs_and_kl
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training import distributed
from rlhf_online.training.optimiser import NamedAdam
from rlhf_online.training.policy.average import WeightAverage
from rlhf_online.training.policy.micro_batches import MicroBatches
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.policy_update import PolicyUpdater
from tests.support import ranks

T = TypeVar("T")
CPU = torch.device("cpu")
PAIRS = [((1, 10, 3), (12, 13, 14)), ((1, 11, 3), (20,))]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


def in_a_group(work: Callable[..., Any], base: Path) -> Any:
    with distributed.process_group(CPU, 60.0):
        return work(base)


def sharded_policy(base: Path) -> Policy:
    policy = Policy.load(base, tuning="full")
    policy.shards.over(distributed.mesh(CPU))
    return policy


def held(base: Path) -> dict[str, int]:
    """Bytes of a policy, its reference and a reward model in this process, and those of the whole."""
    policy, model = sharded_policy(base), RewardModel.load(base, tuning="full")
    model.shards.over(distributed.mesh(CPU))
    assert policy.reference is not None
    weights = [p for module in (policy.lm, policy.reference, model.decoder) for p in module.parameters()]
    return {
        "here": sum(sharding.piece(weight).nbytes for weight in weights),
        "whole": sum(weight.numel() * weight.element_size() for weight in weights),
    }


def test_each_process_holds_its_share_of_every_model(base: Path) -> None:
    first, second = ranks.run(2, in_a_group, held, base)
    assert first["here"] + second["here"] == first["whole"]
    assert first["here"] == pytest.approx(second["here"], rel=0.05)


def asked(base: Path) -> dict[str, Any]:
    """What one process alone asks of a gathered policy, more often than the other, and what is left."""
    plain, policy = Policy.load(base, tuning="full"), sharded_policy(base)
    rank, found = int(os.environ["RANK"]), dict[str, Any]()
    with policy.shards.gathered():
        for _ in range(1 + 2 * rank):  # the number is nobody else's business
            found["logprobs"] = policy.logprobs(PAIRS) == plain.logprobs(PAIRS)
            found["reference"] = policy.logprobs(PAIRS, reference=True) == plain.logprobs(PAIRS, reference=True)
            found["probe"] = policy.probe([(1, 10, 3, 12)]) == plain.probe([(1, 10, 3, 12)])
            asks = {"max_tokens": 5, "temperature": 1.0, "seed": 3, "eos_ids": (0,)}
            found["sampled"] = policy.sample([(1, 10)], **asks) == plain.sample([(1, 10)], **asks)
        if rank == 0:
            policy.write_version(base / "written")
        with torch.no_grad():
            next(policy.lm.parameters()).zero_()
    batch = policy.collate(PAIRS[: 1 + rank])
    policy.forward(batch).logprobs_BA.sum().backward()  # in step, however often each has asked
    state = policy.state()
    if rank == 0:
        found["state"] = all(torch.equal(state[name], tensor) for name, tensor in plain.state().items())
    else:
        found["state"] = all(state[name].numel() == 0 for name in state if name.startswith("policy."))
    return found


def test_a_gathered_model_is_as_one_process_has_it_and_is_cut_again_unchanged(base: Path) -> None:
    for found in ranks.run(2, in_a_group, asked, base):
        assert set(found.values()) == {True}, found
    written, stored = (load_file(folder / "model.safetensors") for folder in (base / "written", base))
    assert written.keys() == stored.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in stored.items())


def looked_at(base: Path) -> dict[str, set[bool]]:
    """Whether the reference was whole while the policy computed, by what asked it."""
    policy = sharded_policy(base)
    updater, passes = PolicyUpdater(policy, PolicyTraining(), 0), MicroBatches(policy, 2048)
    reference, seen, found = policy.reference, list[bool](), dict[str, set[bool]]()
    assert reference is not None
    decoder = policy.lm.get_submodule("model")
    decoder.register_forward_pre_hook(lambda *_: seen.append(not any(map(sharding.is_sharded, reference.parameters()))))

    def ask(what: str, work: Callable[[], T]) -> T:
        seen.clear()
        said = work()
        found[what] = set(seen)
        return said

    answers = ask("measuring", lambda: passes.measure(PAIRS, torch.ones(len(PAIRS))))
    ask("a step", lambda: passes.step_kl(answers))
    ask("a point of reference", lambda: passes.sequence_logprobs(answers, [0, 1]))
    with updater.published():
        asks = {"max_tokens": 5, "temperature": 1.0, "seed": 3, "eos_ids": (0,)}
        ask("sampling", lambda: policy.sample([(1, 10)], **asks))
        ask("a probe", lambda: policy.probe([(1, 10, 3, 12)]))
    with updater.published(reference=True):
        ask("comparing", lambda: logprobs_and_kl(policy, PAIRS))
    return found


def test_the_reference_is_put_together_only_for_what_compares_with_it(base: Path) -> None:
    """It is as large as the policy."""
    for found in ranks.run(2, in_a_group, looked_at, base):
        assert {what for what, whole in found.items() if whole == {True}} == {"measuring", "comparing"}
        assert all(len(whole) == 1 for whole in found.values()) and len(found) == 6, found


def averaged(base: Path) -> dict[str, Tensor]:
    policy = sharded_policy(base)
    average = WeightAverage(policy.parameters(), 0.75)
    with torch.no_grad():
        for parameter in policy.parameters().values():
            sharding.piece(parameter).add_(1.0)
    average.step()
    with average.in_place():
        inside = policy.state()
    outside, kept = policy.state(), average.state()
    average.load_state({name: torch.full(each.shape, 2.0) for name, each in policy.parameters().items()})
    return {
        "inside": inside["policy.model.norm.weight"],
        "outside": outside["policy.model.norm.weight"],
        "kept": kept["model.norm.weight"],
        "restored": average.state()["model.norm.weight"],
    }


def test_an_average_serves_in_the_place_of_pieces(base: Path) -> None:
    first, second = ranks.run(2, in_a_group, averaged, base)
    weight = load_file(base / "model.safetensors")["model.norm.weight"]
    assert torch.allclose(first["inside"], weight + 0.25) and torch.allclose(first["kept"], weight + 0.25)
    assert torch.allclose(first["outside"], weight + 1.0) and torch.equal(first["restored"], 0 * weight + 2.0)
    assert all(tensor.numel() == 0 for tensor in second.values()), "what is whole is kept once"


def stepped(base: Path) -> tuple[bool, set[int]]:
    """Whether weights and moments are the same bits wherever moments are kept, and how many values those of a layer's
    norm have in a checkpoint."""
    found = list[dict[str, Tensor]]()
    for on_cpu in (False, True):
        policy = sharded_policy(base)
        adam = NamedAdam(policy.parameters(), betas=(0.9, 0.999), eps=1e-8, on_cpu=on_cpu)
        for _ in range(2):
            adam.zero_grad()
            policy.forward(policy.collate(PAIRS)).logprobs_BA.sum().backward()
            adam.clip(1.0)
            adam.step(1e-3)
        found.append(policy.state() | adam.state())
    one, other = found
    same = one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    return same, {each["exp_avg.model.norm.weight"].numel() for each in found}


def test_moments_of_pieces_are_the_same_wherever_they_are_kept(base: Path) -> None:
    width = load_file(base / "model.safetensors")["model.norm.weight"].numel()
    assert ranks.run(2, in_a_group, stepped, base) == [(True, {width}), (True, {0})]


def test_without_a_group_a_tensor_is_its_own_piece() -> None:
    weight = nn.Parameter(torch.arange(3.0))
    assert sharding.piece(weight) is weight and sharding.like(weight, weight) is weight
    assert not sharding.is_sharded(weight) and sharding.held(None) is None
    sharding.put(weight, torch.ones(3))
    copy = sharding.on_cpu(weight)
    other = torch.zeros(3)
    with sharding.gathered(nn.Linear(2, 2)):
        sharding.exchange(weight, other)
    assert copy.tolist() == other.tolist() == [1, 1, 1] and weight.tolist() == [0, 0, 0]


def stored_alone(base: Path) -> list[bool]:
    """Whether each tensor of a checkpoint takes no more memory than its values do."""
    tensors = sharded_policy(base).state().values()
    return [tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors]


def test_what_is_put_together_of_pieces_that_are_not_alike_is_no_part_of_something_larger(base: Path) -> None:
    """Else all of it would be copied at once as a checkpoint is written: three pieces of 2ⁿ rows are not alike."""
    assert all(all(found) for found in ranks.run(3, in_a_group, stored_alone, base))


def test_a_torch_that_cannot_forget_a_gathering_is_refused_by_name(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FSDPModule, "reset_iter_state")
    mesh: Any = None
    with pytest.raises(ConfigError, match=r"^sharding: 'full' needs torch 2\.13, and this is "):
        Policy.load(base, tuning="full").shards.over(mesh)
