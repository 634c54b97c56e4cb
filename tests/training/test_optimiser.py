"""Adam over named groups: its rates, its gradients, and what of it is kept."""

import pytest
import torch
from torch import Tensor, nn

from rlhf_online.errors import VersionCorrupt
from rlhf_online.training.optimiser import NamedAdam


def _parameters(*names: str) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.zeros(2)) for name in names}


def _adam(*groups: dict[str, nn.Parameter]) -> NamedAdam:
    return NamedAdam(*groups, betas=(0.9, 0.999), eps=1e-8)


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
