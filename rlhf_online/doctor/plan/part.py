"""What learns of a model, and how it is cut among ranks. Pure."""

from dataclasses import dataclass

from rlhf_online.config import Tuning
from rlhf_online.doctor.plan.shape import WIDE, Shape
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.settings import RewardTraining

IN_FLIGHT = 3
"""Layers' worth of a backward pass over pieces: one that computes, its gradient, and the next one as it is fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What learns of a model: so many values, cut into `pieces`, of which a rank keeps one."""

    values: int
    pieces: int
    depth: int
    """Layers that a gradient goes through."""
    passing: int
    """Bytes that a pass with gradients puts together of pieces: what is in no layer, with its gradient, for as long as
    layers come and go."""

    @classmethod
    def of(
        cls, shape: Shape, tuning: Tuning, settings: PolicyTraining | RewardTraining, pieces: int, *, head: bool
    ) -> "Part":
        """`head`: the output layer belongs to it. An adapter is cut nowhere."""
        if tuning == "lora":
            layers = settings.lora_layers
            values = shape.adapter(settings.lora_rank, layers)
            return cls(values=values, pieces=1, depth=shape.changed(layers), passing=0)
        outside = shape.outside - (0 if head else shape.head)
        first = (shape.head or outside) if head else 0  # its gradient is there before that of any layer
        passing = WIDE * max(2 * outside, outside + first + IN_FLIGHT * shape.block)
        values = shape.weights - (0 if head else shape.head)
        return cls(values=values, pieces=pieces, depth=shape.depth, passing=passing if pieces > 1 else 0)

    @property
    def kept(self) -> int:
        return -(-self.values // self.pieces)

    @property
    def gathered(self) -> int:
        """Bytes of the model as it is whole beside its pieces."""
        return WIDE * self.values if self.pieces > 1 else 0
