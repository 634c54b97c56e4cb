"""Tensors to a device, without waiting for it.

A copy from ordinary memory to a GPU waits until all that was asked of the GPU before is done, so that it then has
nothing to do while the next work is prepared; one from pinned memory does not.
"""

import torch
from torch import Tensor


def onto(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor` on `device`; the caller may change or drop the original at once."""
    device = torch.device(device)
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
