"""Here with torch's compiler for a CPU, which the product does not use: what it makes of the layers is the same."""

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from rlhf_online.models import compiled
from rlhf_online.models.compiled import compile_layers, fused, plainly

pytestmark = pytest.mark.filterwarnings(  # torch's own compiler warns while it compiles (2.13)
    "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning",
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning",
)
WIDTH = 256


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(compiled, "available", lambda: True)
    config = LlamaConfig(
        vocab_size=50, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    return LlamaModel(config).eval()


def states(model: LlamaModel) -> Tensor:
    return model(input_ids=torch.arange(1, 8).unsqueeze(0), use_cache=False).last_hidden_state


def are_compiled(model: LlamaModel) -> list[bool]:
    return [layer._compiled_call_impl is not None for layer in model.layers]  # noqa: SLF001


def test_narrow_models_and_those_without_a_compiler_run_as_they_were_written(model, monkeypatch):
    assert not compile_layers(model, WIDTH - 1, lambda: states(model))
    monkeypatch.setattr(compiled, "available", lambda: False)
    assert not compile_layers(model, WIDTH, lambda: states(model))
    assert are_compiled(model) == [False, False]


def test_layers_are_compiled_and_leave_no_gradient_behind(model, monkeypatch):
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: compiler(*args, **kwargs, backend="aot_eager"))
    plain = states(model)
    assert compile_layers(model, WIDTH, lambda: states(model))
    assert are_compiled(model) == [True, True]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.allclose(states(model), plain, atol=1e-5)
    with plainly():
        assert torch.equal(states(model), plain)


@pytest.mark.parametrize(
    ("after", "reason"),
    [(RuntimeError("no C compiler\nat all"), "RuntimeError: no C compiler"), (2.0, "something else")],
)
def test_what_cannot_be_compiled_or_computes_something_else_stays_as_it_was(model, after, reason, capsys):
    def tried() -> Tensor:
        if not any(are_compiled(model)):
            return torch.ones(3, requires_grad=True)
        if isinstance(after, Exception):
            raise after
        return torch.full((3,), after, requires_grad=True)

    assert not compile_layers(model, WIDTH, tried)
    assert are_compiled(model) == [False, False]
    assert reason in capsys.readouterr().out


def test_a_fused_function_is_itself_on_a_cpu():
    called = []

    @fused
    def double(values: Tensor) -> Tensor:
        """Twice."""
        called.append(values)
        return 2 * values

    assert double(torch.ones(2)).tolist() == [2, 2] and len(called) == 1
    assert double.__doc__ == "Twice."
