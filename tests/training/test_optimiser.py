"""Adam over named groups: its rates, its gradients, and what of it is kept."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rlhf_online.errors import NotEnoughRoom, VersionCorrupt
from rlhf_online.training.optimiser import NamedAdam, NoRoomForCopy


def _parameters(*names: str) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.zeros(2)) for name in names}


def _adam(*groups: dict[str, nn.Parameter], on_cpu: bool = False) -> NamedAdam:
    return NamedAdam(*groups, betas=(0.9, 0.999), eps=1e-8, on_cpu=on_cpu)


def _step(adam: NamedAdam, gradients: dict[str, list[float]], *rates: float) -> None:
    """One step with these gradients; a parameter that is not named gets none."""
    adam.zero_grad()
    for name, gradient in gradients.items():
        (adam.parameters[name] * torch.tensor(gradient)).sum().backward()
    adam.step(*rates)


def _values(adam: NamedAdam) -> dict[str, list[float]]:
    return {name: parameter.tolist() for name, parameter in adam.parameters.items()}


def test_each_group_has_its_own_rate():
    adam = _adam(_parameters("a"), _parameters("b"))
    _step(adam, {"a": [1.0, -1.0], "b": [1.0, 1.0]}, 0.1, 0.5)
    assert _values(adam) == {"a": pytest.approx([-0.1, 0.1]), "b": pytest.approx([-0.5, -0.5])}


def test_gradients_of_one_step_are_not_those_of_the_next():
    adam = _adam(_parameters("a"))
    for _ in range(2):
        _step(adam, {"a": [1.0, -1.0]}, 0.1)
    assert adam.clip(100.0) == pytest.approx(2**0.5), "of the last step alone"


def test_what_gets_no_gradient_is_left_alone_whatever_it_got_before():
    """A parameter of gradient 0 would go on by its momentum."""
    adam = _adam(_parameters("a", "b"))
    _step(adam, {"a": [1.0, 1.0], "b": [1.0, 1.0]}, 0.1)
    before = _values(adam)
    _step(adam, {"a": [1.0, 1.0]}, 0.1)
    assert _values(adam)["b"] == before["b"] and _values(adam)["a"] != before["a"]


def test_a_snapshot_takes_steps_back_moments_included():
    """The next step is the one that would have followed it; what had no moments has none again."""
    adam, steady = (_adam(_parameters("a", "b")) for _ in range(2))
    for one in (adam, steady):
        _step(one, {"a": [1.0, 2.0]}, 0.1)
    put_back, before = adam.snapshot(), adam.state()
    for _ in range(3):
        _step(adam, {"a": [-5.0, 1.0], "b": [1.0, 1.0]}, 0.1)
    put_back()
    assert _values(adam) == _values(steady)
    assert adam.state().keys() == before.keys() and all(
        torch.equal(adam.state()[name], before[name]) for name in before
    )
    for one in (adam, steady):
        _step(one, {"a": [1.0, -1.0], "b": [1.0, 1.0]}, 0.1)
    assert _values(adam) == _values(steady)


def test_a_gradient_is_scaled_down_to_the_limit_and_its_norm_before_is_told():
    adam = _adam(_parameters("a", "b"))
    (adam.parameters["a"] * torch.tensor([3.0, 0.0])).sum().backward()
    (adam.parameters["b"] * torch.tensor([0.0, 4.0])).sum().backward()
    assert adam.clip(1.0) == pytest.approx(5.0)
    assert adam.clip(100.0) == pytest.approx(1.0, abs=1e-5)


def test_a_restored_one_goes_on_as_if_nothing_had_happened_and_nothing_restored_begins_anew():
    adam = _adam(_parameters("a", "b"))
    _step(adam, {"a": [1.0, 2.0]}, 0.1)
    state = adam.state()
    assert set(state) == {"step.a", "exp_avg.a", "exp_avg_sq.a"}, "b has made no step"
    other = _adam(_parameters("a", "b"))
    other.load_state(state)
    again = {name: tensor.clone() for name, tensor in state.items()}
    for each in (adam, other):
        with torch.no_grad():
            each.parameters["a"].zero_()
        _step(each, {"a": [-1.0, 0.5]}, 0.1)
    assert _values(adam) == _values(other)
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items()), "what was stored is no part of it"
    adam.load_state({})
    assert adam.state() == {}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"step.c": torch.ones(())}, "belongs to another model"),
        ({f"{slot}.a": torch.ones(3) for slot in ("step", "exp_avg", "exp_avg_sq")}, "another shape for a"),
    ],
)
def test_another_models_state_is_refused(stored: dict[str, Tensor], message: str):
    with pytest.raises(VersionCorrupt, match=message):
        _adam(_parameters("a")).load_state(stored)


def _shapes() -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Two groups, of tensors of several sizes, one of which lies transposed."""
    draw = torch.Generator().manual_seed(5)
    sizes = {"a": (3,), "b": (4, 5), "c": (2, 3, 4), "d": (1,)}
    made = {name: nn.Parameter(torch.randn(size, generator=draw)) for name, size in sizes.items()}
    made["b"].data = made["b"].data.t().contiguous().t()
    return {name: made[name] for name in "abc"}, {"d": made["d"]}


def _learn(adam: NamedAdam, seed: int, *names: str) -> None:
    """A step on gradients that the seed draws, of these tensors."""
    draw = torch.Generator().manual_seed(seed)
    for name in names:
        gradient = torch.randn(adam.parameters[name].shape, generator=draw)
        adam.parameters[name].grad = torch.empty_like(adam.parameters[name]).copy_(gradient)
    adam.clip(1.0)
    adam.step(0.1, 0.03)
    adam.zero_grad()


def test_where_moments_are_kept_changes_no_bit_of_weights_or_checkpoint():
    """Through steps that leave a tensor out, one that is taken back, and checkpoints read by the other."""
    there, away = _adam(*_shapes()), _adam(*_shapes(), on_cpu=True)
    for one in (there, away):
        _learn(one, 1, "a", "c", "d")
        put_back = one.snapshot()
        _learn(one, 2, "a", "b", "c", "d")
        put_back()
        _learn(one, 3, "a", "c")
    states = there.state(), away.state()
    there.load_state(states[1])
    away.load_state(states[0])
    for one in (there, away):
        _learn(one, 4, "a", "b", "d")
    assert _values(there) == _values(away)
    for one, other in (states, (there.state(), away.state())):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert "step.b" not in states[0] and there.state()["step.b"] == 1


@pytest.mark.parametrize("on_cpu", [False, True])
def test_it_steps_as_torchs_own(on_cpu: bool):
    adam, plain = _adam(*_shapes(), on_cpu=on_cpu), _shapes()
    groups = [{"params": list(group.values()), "lr": rate} for group, rate in zip(plain, (0.1, 0.03), strict=True)]
    oracle = torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)
    parameters = plain[0] | plain[1]
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        for name, parameter in parameters.items():
            gradient = torch.randn(parameter.shape, generator=draw)
            for each in (parameter, adam.parameters[name]):
                each.grad = torch.empty_like(each).copy_(gradient)
        oracle.step()
        adam.step(0.1, 0.03)
    assert _values(adam) == {name: parameter.tolist() for name, parameter in parameters.items()}


def _beyond_any_memory() -> nn.Parameter:
    """4 PiB, as seen from outside."""
    return nn.Parameter(torch.zeros(1).expand(1 << 50))


def test_moments_that_find_no_room_are_refused_before_anything_is_learned():
    with pytest.raises(NotEnoughRoom, match=r"8,388,608\.0 GiB of the device.* set optimiser_state = 'cpu', tuning"):
        _adam({"a": _beyond_any_memory()})
    with pytest.raises(NotEnoughRoom, match=r"8,388,608\.0 GiB of the host.* set tuning or"):
        _adam({"a": _beyond_any_memory()}, on_cpu=True)


def test_a_copy_that_finds_no_room_is_named_with_its_size():
    adam = _adam(_parameters("a"))
    adam.parameters["a"].data = _beyond_any_memory().data
    with pytest.raises(NoRoomForCopy, match=r"4,194,304\.0 GiB, to take it back with .*'lora'"):
        adam.snapshot()


def test_a_step_takes_no_more_memory_than_is_there_before_the_first():
    """Moments, and where they are brought to: else it would run out half-way, some of the weights changed."""
    made: list[str] = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "empty" in str(function) or "zeros" in str(function) or "clone" in str(function):
                made.append(str(function))
            return function(*args, **(kwargs or {}))

    for on_cpu in (False, True):
        adam = _adam(*_shapes(), on_cpu=on_cpu)
        for parameter in adam.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        with Watched():
            adam.step(0.1, 0.03)
    assert made == []
