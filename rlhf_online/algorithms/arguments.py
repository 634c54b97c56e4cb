"""What the functions of this room say of an argument that they cannot use: its name, what is right, what was given.

The bounds are those of the settings (`training.policy.algorithms`), so that a library call can do no more than those.
"""

import math

import torch
from torch import Tensor

from rlhf_online.errors import InvalidInput


def bounded(
    name: str, value: float, *, above: float = -math.inf, least: float = -math.inf, most: float = math.inf
) -> None:
    """Raises InvalidInput, a ValueError, unless above < value, least ≤ value ≤ most; NaN never is."""
    if value > above and least <= value <= most:
        return
    wanted = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
    if most < math.inf:
        wanted += f" and at most {most:g}"
    raise InvalidInput(f"{name} must be {wanted}, got {value:g}")


def boolean(name: str, mask: Tensor) -> None:
    """Raises InvalidInput for a mask of numbers: what is 0.5 of a token?"""
    if mask.dtype != torch.bool:
        raise InvalidInput(f"{name} must be a tensor of bool, got {mask.dtype}: pass {name}.bool()")


def right_padded(name: str, mask_BT: Tensor) -> None:
    """Raises InvalidInput unless the True entries of each row come first."""
    boolean(name, mask_BT)
    (rows,) = torch.nonzero((mask_BT[:, 1:] & ~mask_BT[:, :-1]).any(1), as_tuple=True)
    if len(rows):
        raise InvalidInput(
            f"{name} must be True first in every row, and row {int(rows[0])} is True again after False: "
            "pass the tokens without the hole, right padded"
        )
