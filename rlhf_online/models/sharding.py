"""A model whose weights, gradients and moments are spread over processes (FSDP2, `fully_shard`).

Each process keeps a piece of every weight, along its first dimension, as a DTensor; a layer is put together for as long
as it computes, and its gradient is the sum over the processes, cut again. So every process must make equally many
passes that learn, all through the `root` that was sharded, since that gathers what no layer holds.

    a pass that learns     layer by layer: what is whole is one layer, and what is in no layer
    whatever only reads    in `gathered`: the model is whole on each card, and behaves as if it had never been cut

What leaves a card is whole (`on_cpu`), and what comes is cut (`put`): files know nothing of pieces.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from rlhf_online.errors import ConfigError


def shard(root: nn.Module, mesh: DeviceMesh) -> None:
    """Cut all weights of `root` into pieces, layer by layer and then the rest, in place. Raises ConfigError."""
    if not hasattr(FSDPModule, "reset_iter_state"):
        raise ConfigError(
            f"sharding: 'full' needs torch 2.13, and this is {torch.__version__}: install that, or choose 'none'"
        )
    for layer in [module for module in root.modules() if isinstance(module, GradientCheckpointingLayer)]:
        fully_shard(layer, mesh=mesh)
    fully_shard(root, mesh=mesh)
    for module in _parts(root):
        # The sum and not the mean: losses are divided by what the whole step has.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    # Else a layer that is called by itself in `gathered` would take itself for the root.
    root._get_fsdp_state()._lazy_init()  # type: ignore[attr-defined]  # noqa: SLF001


@contextmanager
def gathered(*roots: nn.Module) -> Iterator[None]:
    """While the block runs, in which nothing may learn, their weights are whole; all processes come here together, and
    each may do with them what it likes, or nothing. What it changes of them is gone afterwards."""
    try:
        for root in roots:
            for part in _parts(root):
                part.unshard()
                part.set_reshard_after_forward(False, recurse=False)
        yield
    finally:
        for root in roots:
            # Also forgets the passes made here: FSDP would prefetch for a later one by the order of all before it.
            for part in _parts(root):
                part.set_reshard_after_forward(part is not root, recurse=False)
            if isinstance(root, FSDPModule):
                root.reset_iter_state()


class Shards:
    """Of the models `roots`, by name, which several processes may share; without any each keeps all."""

    def __init__(self, **roots: nn.Module) -> None:
        self._roots = roots
        self.cut = False
        """Whether this process holds but pieces."""

    def over(self, mesh: DeviceMesh) -> None:
        """Keep but a piece of all weights in each process of `mesh`, of which all do this."""
        for root in self._roots.values():
            shard(root, mesh)
            self.cut = True

    def gathered(self, *names: str) -> AbstractContextManager[None]:
        """See `gathered`; of these models alone, by default of all. Nothing of models that are whole."""
        return gathered(*(root for name, root in self._roots.items() if not names or name in names))


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a piece of it alone."""
    return isinstance(tensor, DTensor)


def piece(parameter: nn.Parameter) -> nn.Parameter:
    """What this process holds of it, as a plain parameter on the same memory: itself if it is whole."""
    if not isinstance(parameter, DTensor):
        return parameter
    with torch.no_grad():
        return nn.Parameter(parameter.to_local(), requires_grad=parameter.requires_grad)


def held(tensor: Tensor | None) -> Tensor | None:
    """What this process holds of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(held: Tensor, parameter: Tensor) -> Tensor:
    """The tensor of which each process holds such a piece as it does of `parameter`; itself if that is whole."""
    if not isinstance(parameter, DTensor):
        return held
    spread = {"shape": parameter.shape, "stride": parameter.stride(), "run_check": False}
    return DTensor.from_local(held, parameter.device_mesh, parameter.placements, **spread)


@torch.no_grad()
def put(tensor: Tensor, whole: Tensor) -> None:
    """Copy `whole` into `tensor`, or, of one that is sharded, this process's piece of it, which every process has."""
    if isinstance(tensor, DTensor):
        whole = whole.to(tensor.device)
        cut = distribute_tensor(whole, tensor.device_mesh, tensor.placements, src_data_rank=None)
        tensor.to_local().copy_(cut.to_local())
    else:
        tensor.copy_(whole)


@torch.no_grad()
def on_cpu(tensor: Tensor) -> Tensor:
    """A copy on the CPU, whole; of what is sharded in the first process alone, to which the others lend their pieces:
    in them it is empty."""
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return tensor.cpu().clone().contiguous()
    whole = tensor.full_tensor()
    if tensor.device_mesh.get_rank() != 0:
        return whole.new_empty(0, device="cpu")
    whole = whole.cpu().contiguous()
    # Of pieces that are not alike it is the beginning of something larger, which `save_file` would refuse.
    return whole if whole.untyped_storage().nbytes() == whole.nbytes else whole.clone()


@torch.no_grad()
def exchange(one: Tensor, other: Tensor) -> None:
    """Give each the values of the other, where both lie."""
    held = one.clone()
    one.copy_(other)
    other.copy_(held)


def _parts(root: nn.Module) -> list[FSDPModule]:
    return [module for module in root.modules() if isinstance(module, FSDPModule)]
