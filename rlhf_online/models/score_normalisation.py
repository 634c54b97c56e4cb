"""Zero and unit of a reward model's scores, over reference answers. Pure.

Only differences of utilities are learned from rankings, so every head has its own zero. Over the reference answers the
mean of an objective's heads has mean 0 and variance 1. Shapes: N answers, O objectives, K heads.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

UNTRAINED_STD = 1e30
"""Stands for the standard deviation of an objective that no vote has trained: it scores 0, and is no part of the
combined score."""


@dataclass(frozen=True, slots=True)
class ScoreNormalisation:
    """`correlation_OO` is that of the objectives' mean scores over the reference answers."""

    mean_OK: Tensor
    std_O: Tensor
    correlation_OO: Tensor

    @classmethod
    def identity(cls, objectives: int, heads: int) -> "ScoreNormalisation":
        """Scores are utilities."""
        return cls(torch.zeros(objectives, heads), torch.ones(objectives), torch.eye(objectives))

    @classmethod
    def over(cls, utilities_NOK: Tensor, untrained_O: list[bool]) -> "ScoreNormalisation":
        """That of two or more reference answers; `untrained_O` are objectives by which no vote has ordered answers."""
        mean_OK = utilities_NOK.mean(0)
        centred_NO = (utilities_NOK - mean_OK).mean(2)
        std_O = centred_NO.std(0, unbiased=False).clamp(min=1e-6)
        std_O[untrained_O] = UNTRAINED_STD
        unit_NO = centred_NO / std_O
        return cls(mean_OK, std_O, unit_NO.T @ unit_NO / len(utilities_NOK))

    def __call__(self, utilities_NOK: Tensor) -> Tensor:
        """Each head's scores."""
        std_O1 = self.std_O.unsqueeze(1)
        return ((utilities_NOK - self.mean_OK) / std_O1).where(std_O1 < UNTRAINED_STD, 0.0)

    def tensors(self) -> dict[str, Tensor]:
        """By the names in a checkpoint and in reward.json; `from_tensors` takes them."""
        return {"mean": self.mean_OK, "std": self.std_O, "correlation": self.correlation_OO}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "ScoreNormalisation":
        return cls(tensors["mean"], tensors["std"], tensors["correlation"])
