"""An Adam whose state is a flat dictionary of tensors, so that safetensors can hold it, and can be taken back.

Invariant: nothing but the tensors' names ties a stored state to a model; a state of other names or shapes is refused.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rlhf_online.errors import VersionCorrupt

SLOTS = ("step", "exp_avg", "exp_avg_sq")


class NamedAdam:
    """torch's Adam over named parameters, each name with its own learning rate."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], lr: Mapping[str, float], *, betas: tuple[float, float], eps: float
    ) -> None:
        self.parameters = dict(parameters)
        self._lr = dict(lr)
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.parameters.items():
            groups.setdefault(self._lr[name], []).append(parameter)
        self._adam = torch.optim.Adam(
            [{"params": members, "lr": rate, "base": rate} for rate, members in groups.items()], betas=betas, eps=eps
        )

    def zero_grad(self) -> None:
        self._adam.zero_grad(set_to_none=True)

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to `max_norm`; returns its norm before."""
        return float(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), max_norm))

    def step(self, scale: float = 1.0) -> None:
        """One step at `scale` times the learning rates."""
        for group in self._adam.param_groups:
            group["lr"] = group["base"] * scale
        self._adam.step()

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
                slot: tensor.clone() if slot == "step" else tensor.to(parameter, copy=True)
                for slot, tensor in stored.items()
            }
