"""Weights that never learn, the base model below an adapter and the reference: as small as they can be, and once.

Invariant: nothing that is computed changes by it. What is narrowed loses no bit, since most models are published in
bfloat16, and is what `precision.computing` would cast for each product anyway; what is shared is equal, bit by bit.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def narrow(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep frozen weights of linear layers in `dtype`, where it holds their values."""
    if dtype.itemsize >= torch.float32.itemsize:
        return
    uses = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
    for layer in _linear(model):
        for parameter in layer.parameters(recurse=False):
            small = parameter.detach().to(dtype)
            alone = uses[id(parameter)] == 1  # not tied to an embedding, whose states are to stay float32
            if alone and not parameter.requires_grad and torch.equal(small.to(parameter.dtype), parameter):
                parameter.data = small


@contextmanager
def widened(model: nn.Module) -> Iterator[None]:
    """While the block runs narrowed layers compute in float32: each has such weights for as long as it computes."""
    kept: dict[nn.Parameter, Tensor] = {}

    def widen(layer: nn.Module, args: object) -> None:
        for parameter in layer.parameters(recurse=False):
            kept[parameter], parameter.data = parameter.data, parameter.data.float()

    def put_back(layer: nn.Module, args: object, out: object) -> None:
        for parameter in layer.parameters(recurse=False):
            parameter.data = kept.pop(parameter)

    layers = [layer for layer in _linear(model) if any(map(_is_narrow, layer.parameters(recurse=False)))]
    hooks = [layer.register_forward_pre_hook(widen) for layer in layers]
    hooks += [layer.register_forward_hook(put_back) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, data in kept.items():  # of a layer that failed
            parameter.data = data


class FrozenWeights:
    """The frozen weights of the models of this process, for as long as a model holds them."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[str, nn.Parameter] = WeakValueDictionary()

    def keep(self, model: PreTrainedModel) -> None:
        """Have `model` hold those of another model in the place of its own where they are of one name and equal."""
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                continue
            known = self._known.setdefault(name.removeprefix(f"{model.base_model_prefix}."), parameter)
            same = (known.dtype, known.device, known.shape) == (parameter.dtype, parameter.device, parameter.shape)
            if known is not parameter and same and torch.equal(known, parameter):
                parameter.data = known.data


def _is_narrow(parameter: Tensor) -> bool:
    return parameter.dtype.itemsize < torch.float32.itemsize


def _linear(model: nn.Module) -> Iterator[nn.Linear]:
    return (module for module in model.modules() if isinstance(module, nn.Linear))
