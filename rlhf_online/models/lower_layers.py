"""The layers below an adapter say of a sequence what they said before: once an update is enough.

Where an adapter changes the topmost layers alone (`trunk.add_lora`), what is below them is the same for the policy, for
its reference and in each pass over an answer, and no gradient goes through it, as in trlX with `num_layers_unfrozen`
(Havrilla et al. 2023, section 2.2). The first pass keeps the states that the lowest changed layer reads, and later
ones, of the same sequences in whatever order, begin there:

    pass 1     embedding → layer 0 → … → layer n−1 → states kept → layer n (adapter) → …
    later      embedding → (each state as it was kept) ───────────→ layer n (adapter) → …

Shapes: R rows, T tokens of the longest row, d hidden width, S tokens of a prompt or of an answer. Invariant: a state
that is kept was computed of exactly the tokens before it, by weights that never learn, in the type that is asked for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from rlhf_online.models.limits import KEPT_BYTES
from rlhf_online.models.packing import Packed
from rlhf_online.models.transfer import onto

Key = tuple[torch.dtype | None, tuple[int, ...], tuple[int, ...] | None]
"""The type that layers compute in where that is not their weights' own, a prompt, and an answer; None for the prompt's
own states."""


class LowerLayers:
    """The first `count` layers in the module list `name` of `decoder`; of 0 nothing is ever kept."""

    def __init__(self, decoder: nn.Module, name: str, count: int) -> None:
        self._decoder = decoder
        self._name = name
        self.count = count
        self._known: dict[Key, Tensor] | None = None
        self._bytes = 0

    @classmethod
    def none(cls, decoder: nn.Module) -> "LowerLayers":
        """There are none."""
        return cls(decoder, "", 0)

    @classmethod
    def below(cls, decoder: nn.Module) -> "LowerLayers":
        """Those below the first layer of which something learns, unless something else does, too."""
        lists = {
            name: child
            for name, child in decoder.named_children()
            if isinstance(child, nn.ModuleList) and all(isinstance(each, GradientCheckpointingLayer) for each in child)
        }
        if len(lists) != 1:
            return cls.none(decoder)
        name, layers = next(iter(lists.items()))
        learns = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in layers]
        beside = any(
            parameter.requires_grad for key, parameter in decoder.named_parameters() if not key.startswith(f"{name}.")
        )
        count = learns.index(True) if any(learns) else 0
        return cls.none(decoder) if beside or not count else cls(decoder, name, count)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While the block runs states are kept, and let go of as it ends."""
        self._known, self._bytes = {} if self.count else None, 0
        try:
            yield
        finally:
            self._known = None

    @contextmanager
    def spared(self, packed: Packed) -> Iterator[None]:
        """While the block runs a call of the decoder with that batch does not compute these layers again where all of
        its states are kept; where some are not, they will be."""
        if self._known is None:
            yield
            return
        found = self._found(packed)
        layers = self._decoder._modules[self._name]  # noqa: SLF001
        assert isinstance(layers, nn.ModuleList)
        last = _Recorded(layers[self.count - 1]) if found is None else _Given(found)
        first = list(layers[: self.count - 1]) if found is None else [_Passed() for _ in range(self.count - 1)]
        # The list is another while the decoder goes through it: its layers, and their names, stay as they are.
        self._decoder._modules[self._name] = nn.ModuleList([*first, last, *layers[self.count :]])  # noqa: SLF001
        try:
            yield
        finally:
            self._decoder._modules[self._name] = layers  # noqa: SLF001
        if isinstance(last, _Recorded):
            self._keep(packed, last.states_RTd)

    def _found(self, packed: Packed) -> Tensor | None:
        """The states of all tokens of a batch, (R, T, d), 0 where it is padded; None if some are not known."""
        assert self._known is not None, "within `kept`"
        known, states, places = self._known, [], {}
        begin = 0
        for keys, path in zip(_keys(packed), packed.paths, strict=True):
            own = [known.get(key) for key in keys]
            for tensor_Sd in own:
                if tensor_Sd is None:
                    return None
                states.append(tensor_Sd)
            for offset, place in enumerate(path):
                places.setdefault(place, begin + offset)  # what several begin with is one token
            begin += len(path)
        states_Xd = torch.cat(states)
        found_Xd = states_Xd.new_zeros(packed.tokens_RT.numel(), states_Xd.shape[1])
        to, source = (onto(torch.tensor(list(each)), states_Xd.device) for each in (places.keys(), places.values()))
        return found_Xd.index_copy(0, to, states_Xd[source]).unflatten(0, packed.tokens_RT.shape)

    def _keep(self, packed: Packed, states_RTd: Tensor | None) -> None:
        if states_RTd is None:  # the decoder failed
            return
        assert self._known is not None, "within `kept`"
        states_Xd = states_RTd.detach().flatten(0, 1)
        for (prompt, answer), keys, path in zip(packed.pairs, _keys(packed), packed.paths, strict=True):
            places_X = onto(torch.tensor(path), states_Xd.device)
            for key, places_S in zip(keys, places_X.split([len(prompt), len(answer)]), strict=True):
                if key not in self._known and self._bytes < KEPT_BYTES:  # what is not there is computed again
                    self._known[key] = states_Xd[places_S]
                    self._bytes += self._known[key].nbytes


def _keys(packed: Packed) -> Iterator[tuple[Key, Key]]:
    """Of each pair, under which its prompt's and its answer's states are kept."""
    device = packed.tokens_RT.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    for prompt, answer in packed.pairs:
        yield (dtype, tuple(prompt), None), (dtype, tuple(prompt), tuple(answer))


class _Passed(nn.Module):
    """In the place of a layer that need not compute."""

    def forward(self, hidden_RTd: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden_RTd


class _Given(nn.Module):
    """In the place of the last of them."""

    def __init__(self, states_RTd: Tensor) -> None:
        super().__init__()
        self._states_RTd = states_RTd

    def forward(self, hidden_RTd: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self._states_RTd


class _Recorded(nn.Module):
    """The last of them, whose states are remembered."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = layer
        self.states_RTd: Tensor | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = self._layer(*args, **kwargs)
        self.states_RTd = found if isinstance(found, Tensor) else found[0]
        return found
