"""An Adam whose state is a flat dictionary of tensors, so that safetensors can hold it, and can be taken back.

Of weights that are sharded (`models.sharding`) it steps this process's pieces, and its stored state is that of the
whole. Invariants: nothing but the tensors' names ties a stored state to a model, and a state of other names or shapes
is refused; all that a step needs besides gradients is there before the first one, so that none runs out of memory
half-way; where the moments are kept changes no bit.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from rlhf_online.errors import NotEnoughRoom, VersionCorrupt
from rlhf_online.models import sharding
from rlhf_online.training import distributed

SLOTS = ("step", "exp_avg", "exp_avg_sq")
MOMENTS = SLOTS[1:]
GIB = 1 << 30

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


class NoRoomForCopy(torch.OutOfMemoryError):
    """Memory does not suffice for a copy of what an update changes; nothing was changed. The message names the figure
    and what would help."""


class NamedAdam:
    """torch's Adam over groups of named parameters, each group with its own learning rate: fused, one kernel a step.

    With `on_cpu` the moments of parameters on a GPU are kept in pinned memory of the host, and brought to the device
    for the step, a tensor at a time. Raises NotEnoughRoom where there is no room for them."""

    def __init__(
        self, *groups: Mapping[str, nn.Parameter], betas: tuple[float, float], eps: float, on_cpu: bool = False
    ) -> None:
        self.parameters = {name: parameter for group in groups for name, parameter in group.items()}
        self._pieces = {name: sharding.piece(parameter) for name, parameter in self.parameters.items()}
        self._groups = [tuple(group) for group in groups]
        self._betas, self._eps = betas, eps
        self._begun: set[str] = set()
        """Those that have made a step; to the others a state means nothing yet."""
        self._staged: tuple[Tensor, ...] = ()
        """Where the moments of a tensor are while it makes its step, if that is elsewhere than they are kept."""
        with _room_for_moments(self._pieces.values(), on_cpu=on_cpu):
            self._state = {name: _zeros(piece, on_cpu=on_cpu) for name, piece in self._pieces.items()}
            if on_cpu:
                largest = max(self._pieces.values(), key=lambda piece: piece.nbytes)
                self._staged = tuple(largest.new_empty(largest.nbytes, dtype=torch.uint8) for _ in MOMENTS)

    def zero_grad(self) -> None:
        for parameter in (*self._pieces.values(), *self.parameters.values()):
            parameter.grad = None

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to `max_norm`; returns its norm before."""
        return clip(list(self.parameters.values()), list(self._pieces.values()), max_norm)

    def step(self, *rates: float) -> None:
        """One step at these learning rates, one a group, after `clip`; what has no gradient makes none."""
        for names, rate in zip(self._groups, rates, strict=True):
            learning = [name for name in names if self._pieces[name].grad is not None]
            self._begun.update(learning)
            if not self._staged:
                self._fused(learning, [self._state[name] for name in learning], rate)
                continue
            for name in learning:
                with self._on_device(name) as state:
                    self._fused([name], [state], rate)

    @torch.no_grad()
    def _fused(self, names: Sequence[str], states: Sequence[Mapping[str, Tensor]], rate: float) -> None:
        pieces: list[Tensor] = [self._pieces[name] for name in names]
        gradients = [piece.grad for piece in pieces if piece.grad is not None]
        steps, first, second = ([state[slot] for state in states] for slot in SLOTS)
        adam(
            pieces, gradients, first, second, [], steps,
            fused=True, amsgrad=False, beta1=self._betas[0], beta2=self._betas[1], lr=rate, weight_decay=0.0,
            eps=self._eps, maximize=False,
        )  # fmt: skip

    @contextmanager
    def _on_device(self, name: str) -> Iterator[Mapping[str, Tensor]]:
        """The state of a tensor where that is; what is done to it in the block is kept. Copies and steps follow one
        another on the device, which nobody waits for."""
        piece, state = self._pieces[name], self._state[name]
        here = {
            slot: staged[: piece.nbytes].view(piece.dtype).as_strided(piece.shape, piece.stride())
            for slot, staged in zip(MOMENTS, self._staged, strict=True)
        }
        for slot, tensor in here.items():
            tensor.copy_(state[slot], non_blocking=True)
        yield {"step": state["step"], **here}
        for slot, tensor in here.items():
            state[slot].copy_(tensor, non_blocking=True)

    def _settle(self) -> None:
        """Before the host reads or writes moments that it keeps: the device may still be at them."""
        if self._staged and self._staged[0].is_cuda:
            torch.cuda.current_stream(self._staged[0].device).synchronize()

    def to_come(self) -> int:
        """Bytes that the next step takes of the device besides what is there: gradients."""
        return sum(piece.nbytes for piece in self._pieces.values() if piece.grad is None)

    def snapshot(self) -> Callable[[], None]:
        """Copies of all that a step changes; calling it puts them back. Raises NoRoomForCopy, in all processes that
        train together."""
        self._settle()
        begun = set(self._begun)
        live = [piece.detach() for piece in self._pieces.values()]
        live += [self._state[name][slot] for name in sorted(begun) for slot in SLOTS]
        with _room_for_copies(live):
            kept = distributed.together(lambda: _copies(live), "copying what an update changes")

        def put_back() -> None:
            self._settle()
            self._forget(self._begun - begun)
            with torch.no_grad():
                for tensor, copy in zip(live, kept, strict=True):
                    tensor.copy_(copy)

        return put_back

    def _forget(self, names: set[str]) -> None:
        """These have made no step."""
        for name in names:
            for tensor in self._state[name].values():
                tensor.zero_()
        self._begun -= names

    def state(self) -> dict[str, Tensor]:
        """ "slot.parameter" → tensor, copies on the CPU (`sharding.on_cpu`); empty before the first step."""
        self._settle()
        found: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            for slot, tensor in self._state[name].items() if name in self._begun else ():
                if slot != "step" and sharding.is_sharded(parameter):
                    tensor = sharding.like(tensor.to(self._pieces[name].device), parameter)
                found[f"{slot}.{name}"] = sharding.on_cpu(tensor)
        return found

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave. Raises VersionCorrupt for another model's."""
        known = {f"{slot}.{name}" for name in self.parameters for slot in SLOTS}
        if not tensors.keys() <= known:
            raise VersionCorrupt("the stored optimiser state belongs to another model: start a new state")
        self._settle()
        self._forget(set(self._begun))
        for name, parameter in self.parameters.items():
            if f"step.{name}" not in tensors:
                continue
            stored = {slot: tensors[f"{slot}.{name}"] for slot in SLOTS}
            if stored["exp_avg"].shape != parameter.shape:
                raise VersionCorrupt(f"the stored optimiser state has another shape for {name}: start a new state")
            self._state[name]["step"].copy_(stored["step"])
            for slot in MOMENTS:
                here = torch.empty_like(self._pieces[name])
                sharding.put(sharding.like(here, parameter), stored[slot])
                self._state[name][slot].copy_(here)
            self._begun.add(name)


def _zeros(piece: Tensor, *, on_cpu: bool) -> dict[str, Tensor]:
    """The state of a tensor that has made no step."""
    kept = {"device": "cpu", "pin_memory": piece.is_cuda} if on_cpu else {}
    moments = {slot: torch.zeros_like(piece, requires_grad=False, **kept) for slot in MOMENTS}
    return {"step": torch.zeros((), dtype=torch.float32, device=piece.device), **moments}


@contextmanager
def _room_for_moments(pieces: Iterable[Tensor], *, on_cpu: bool) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not distributed.out_of_memory(error):
            raise
        size = 2 * sum(piece.nbytes for piece in pieces) / GIB
        where, other = ("the host", "") if on_cpu else ("the device", "optimiser_state = 'cpu', ")
        raise NotEnoughRoom(
            f"Adam's moments take {size:,.1f} GiB of {where}, and there are not as many left: set {other}tuning or "
            "reward.tuning = 'lora', or sharding = 'full' with more ranks; `rlhf-online doctor MODEL --plan` says what "
            "fits. Nothing has been learned since the last checkpoint"
        ) from error


@contextmanager
def _room_for_copies(tensors: Sequence[Tensor]) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not distributed.out_of_memory(error):
            raise
        size = sum(tensor.nbytes for tensor in tensors) / GIB
        raise NoRoomForCopy(
            f"no memory for a copy of what an update changes, {size:,.1f} GiB, to take it back with ({error}): set "
            "tuning or reward.tuning = 'lora'; `rlhf-online doctor MODEL --plan` says what fits"
        ) from error


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Each where it is, or, of a GPU that would be half full with them, in pinned memory, which it fills on its own."""
    on_gpu = [tensor for tensor in tensors if tensor.is_cuda]
    crowded = bool(on_gpu) and 2 * sum(tensor.nbytes for tensor in on_gpu) > _free(on_gpu[0].device)
    return [_pinned(tensor) if crowded and tensor.is_cuda else tensor.clone() for tensor in tensors]


def _pinned(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


def _free(device: torch.device) -> int:
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached
