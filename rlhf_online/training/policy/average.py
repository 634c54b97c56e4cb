"""A moving average of the policy's weights: smoother than the weights that learn, it can serve in their place.

One step an update that was kept: w̄ ← decay · w̄ + (1 − decay) · w (Polyak & Juditsky 1992, with geometric weights).
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from rlhf_online.models import sharding, trunk


class WeightAverage:
    """Of `parameters`; begins as what they are."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters = dict(parameters)
        self._decay = decay
        self._average = {name: sharding.piece(each).detach().clone() for name, each in parameters.items()}
        """Of what is sharded this process's piece."""

    @torch.no_grad()
    def step(self) -> None:
        """Take the weights of this moment in."""
        for name, parameter in self._parameters.items():
            self._average[name].lerp_(sharding.piece(parameter), 1 - self._decay)

    def in_place(self) -> AbstractContextManager[None]:
        """While the block runs the parameters hold the average."""
        return trunk.swapped(self._parameters, self._average)

    def state(self) -> dict[str, Tensor]:
        """Copies on the CPU, by the parameters' names (`sharding.on_cpu`)."""
        return {name: sharding.on_cpu(whole) for name, whole in self._whole().items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave; nothing means to begin anew. Raises VersionCorrupt for another model's."""
        if not tensors:
            for name, parameter in self._parameters.items():
                self._average[name].copy_(sharding.piece(parameter).detach())
            return
        trunk.check_names(self._parameters, tensors)
        for name, average in self._whole().items():
            sharding.put(average, tensors[name])

    def _whole(self) -> dict[str, Tensor]:
        """The average, sharded as the parameters are."""
        return {name: sharding.like(self._average[name], each) for name, each in self._parameters.items()}
