"""An Adam whose state is a flat dictionary of tensors, so that safetensors can hold it, and can be taken back.

Of weights that are sharded (`models.sharding`) it steps this process's pieces, and its stored state is that of the
whole. Invariant: nothing but the tensors' names ties a stored state to a model; a state of other names or shapes is
refused.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from rlhf_online.errors import VersionCorrupt
from rlhf_online.models import sharding
from rlhf_online.training import distributed

SLOTS = ("step", "exp_avg", "exp_avg_sq")

OnStep = Callable[[int, int], None]
"""Called as an update begins to learn and after each of its steps: how many are done, of how many at most."""


def unseen(done: int, of: int) -> None:
    """Nobody wants to know how far an update has come."""


def clip(parameters: Sequence[nn.Parameter], pieces: Sequence[nn.Parameter], max_norm: float) -> float:
    """Give the `pieces` of parameters (`sharding.piece`) their gradient, scaled down to `max_norm` of the whole;
    returns its norm before."""
    whole, cut = list[Tensor](), list[Tensor]()
    for parameter, piece in zip(parameters, pieces, strict=True):
        piece.grad = sharding.held(parameter.grad)
        if piece.grad is not None:
            (cut if sharding.is_sharded(parameter) else whole).append(piece.grad)
    total = distributed.total_norm(whole, cut)
    nn.utils.clip_grads_with_norm_(pieces, max_norm, total)
    return float(total)


class NamedAdam:
    """torch's Adam over groups of named parameters, each group with its own learning rate: fused, one kernel a step."""

    def __init__(self, *groups: Mapping[str, nn.Parameter], betas: tuple[float, float], eps: float) -> None:
        self.parameters = {name: parameter for group in groups for name, parameter in group.items()}
        self._pieces = {name: sharding.piece(parameter) for name, parameter in self.parameters.items()}
        learning = [{"params": [self._pieces[name] for name in group]} for group in groups]
        self._adam = torch.optim.Adam(learning, betas=betas, eps=eps, fused=True)

    def zero_grad(self) -> None:
        self._adam.zero_grad(set_to_none=True)
        for parameter in self.parameters.values():
            parameter.grad = None

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to `max_norm`; returns its norm before."""
        return clip(list(self.parameters.values()), list(self._pieces.values()), max_norm)

    def step(self, *rates: float) -> None:
        """One step at these learning rates, one a group, after `clip`."""
        for group, rate in zip(self._adam.param_groups, rates, strict=True):
            group["lr"] = rate
        self._adam.step()

    def to_come(self) -> int:
        """Bytes that the next step takes of the device besides what is there: gradients, and the first one moments."""
        learning = self._pieces.values()
        moments = sum(2 * parameter.nbytes for parameter in learning if parameter not in self._adam.state)
        return moments + sum(parameter.nbytes for parameter in learning if parameter.grad is None)

    def snapshot(self) -> Callable[[], None]:
        """Copies of all that a step changes; calling it puts them back."""
        begun = {name for name, parameter in self._pieces.items() if parameter in self._adam.state}
        live = [parameter.detach() for parameter in self._pieces.values()]
        live += [self._adam.state[self._pieces[name]][slot] for name in sorted(begun) for slot in SLOTS]
        kept = _copies(live)

        def put_back() -> None:
            for name, parameter in self._pieces.items():
                if name not in begun:
                    self._adam.state.pop(parameter, None)
            with torch.no_grad():
                for tensor, copy in zip(live, kept, strict=True):
                    tensor.copy_(copy)

        return put_back

    def state(self) -> dict[str, Tensor]:
        """ "slot.parameter" → tensor, copies on the CPU (`sharding.on_cpu`); empty before the first step."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            for slot, tensor in self._adam.state.get(self._pieces[name], {}).items():
                found[f"{slot}.{name}"] = sharding.on_cpu(
                    tensor if slot == "step" else sharding.like(tensor, parameter)
                )
        return found

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave. Raises VersionCorrupt for another model's."""
        known = {f"{slot}.{name}" for name in self.parameters for slot in SLOTS}
        if not tensors.keys() <= known:
            raise VersionCorrupt("the stored optimiser state belongs to another model: start a new state")
        self._adam.state.clear()
        for name, parameter in self.parameters.items():
            if f"step.{name}" not in tensors:
                continue
            stored = {slot: tensors[f"{slot}.{name}"] for slot in SLOTS}
            if stored["exp_avg"].shape != parameter.shape:
                raise VersionCorrupt(f"the stored optimiser state has another shape for {name}: start a new state")
            piece = self._pieces[name]
            own = {slot: torch.empty_like(piece) for slot in SLOTS[1:]}
            for slot, tensor in own.items():
                sharding.put(sharding.like(tensor, parameter), stored[slot])
            self._adam.state[piece] = {"step": stored["step"].to(piece.device, copy=True), **own}


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """On their device, or, of a GPU that would be half full with them, in pinned memory, which it fills on its own."""
    device = tensors[0].device
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        if 2 * sum(tensor.nbytes for tensor in tensors) > torch.cuda.mem_get_info(device)[0] + reserved:
            pinned = [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors]
            return [copy.copy_(tensor, non_blocking=True) for copy, tensor in zip(pinned, tensors, strict=True)]
    return [tensor.clone() for tensor in tensors]
