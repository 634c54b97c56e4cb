"""An Adam whose state is a flat dictionary of tensors, so that safetensors can hold it, and can be taken back.

Invariant: nothing but the tensors' names ties a stored state to a model; a state of other names or shapes is refused.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from rlhf_online.errors import VersionCorrupt

SLOTS = ("step", "exp_avg", "exp_avg_sq")

OnStep = Callable[[int, int], None]
"""Called as an update begins to learn and after each of its steps: how many are done, of how many at most."""


def unseen(done: int, of: int) -> None:
    """Nobody wants to know how far an update has come."""


class NamedAdam:
    """torch's Adam over groups of named parameters, each group with its own learning rate: fused, one kernel a step."""

    def __init__(self, *groups: Mapping[str, nn.Parameter], betas: tuple[float, float], eps: float) -> None:
        self.parameters = {name: parameter for group in groups for name, parameter in group.items()}
        learning = [{"params": list(group.values())} for group in groups]
        self._adam = torch.optim.Adam(learning, betas=betas, eps=eps, fused=True)

    def zero_grad(self) -> None:
        self._adam.zero_grad(set_to_none=True)

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to `max_norm`; returns its norm before."""
        return float(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), max_norm))

    def step(self, *rates: float) -> None:
        """One step at these learning rates, one a group."""
        for group, rate in zip(self._adam.param_groups, rates, strict=True):
            group["lr"] = rate
        self._adam.step()

    def to_come(self) -> int:
        """Bytes that the next step takes of the device besides what is there: gradients, and the first one moments."""
        learning = self.parameters.values()
        moments = sum(2 * parameter.nbytes for parameter in learning if parameter not in self._adam.state)
        return moments + sum(parameter.nbytes for parameter in learning if parameter.grad is None)

    def snapshot(self) -> Callable[[], None]:
        """Copies of all that a step changes; calling it puts them back."""
        begun = {name for name, parameter in self.parameters.items() if parameter in self._adam.state}
        live = [parameter.detach() for parameter in self.parameters.values()]
        live += [self._adam.state[self.parameters[name]][slot] for name in sorted(begun) for slot in SLOTS]
        kept = _copies(live)

        def put_back() -> None:
            for name, parameter in self.parameters.items():
                if name not in begun:
                    self._adam.state.pop(parameter, None)
            with torch.no_grad():
                for tensor, copy in zip(live, kept, strict=True):
                    tensor.copy_(copy)

        return put_back

    def state(self) -> dict[str, Tensor]:
        """ "slot.parameter" → tensor, copies on the CPU; empty before the first step."""
        return {
            f"{slot}.{name}": self._adam.state[parameter][slot].detach().cpu().clone()
            for name, parameter in self.parameters.items()
            if parameter in self._adam.state
            for slot in SLOTS
        }

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
            self._adam.state[parameter] = {
                slot: tensor.to(parameter.device, copy=True) if slot == "step" else tensor.to(parameter, copy=True)
                for slot, tensor in stored.items()
            }


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """On their device, or, of a GPU that would be half full with them, in pinned memory, which it fills on its own."""
    device = tensors[0].device
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        if 2 * sum(tensor.nbytes for tensor in tensors) > torch.cuda.mem_get_info(device)[0] + reserved:
            pinned = [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors]
            return [copy.copy_(tensor, non_blocking=True) for copy, tensor in zip(pinned, tensors, strict=True)]
    return [tensor.clone() for tensor in tensors]
