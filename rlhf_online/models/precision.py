"""In which type a model computes, apart from the type that its weights are kept in.

    float32, always               weights that learn ("masters") and their gradients, Adam's moments, the residual
                                  stream, norms, log-softmax, heads of reward and value, losses, reductions
    `dtype` (computing)           products: linear layers, attention, logits
    the base model's (Written)    what is written as a version, and so what serves; masters stay in the checkpoint

A weight of bfloat16 is rounded to 8 bits, so that an update of less than a 500th of it would be lost, and most are:
that is why masters are float32, and why Adam never sees a rounded one (Micikevicius et al. 2018, section 3.1).

Invariant: with float32 nothing is cast and nothing rounded: what is computed is bit for bit what it is without this
module.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlhf_online.config import Dtype
from rlhf_online.errors import InvalidInput
from rlhf_online.models.tensor_headers import read_header
from rlhf_online.versions.weight_files import weight_files

CPU_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Of a processor that multiplies bfloat16 itself, in /proc/cpuinfo (x86, x86, Arm)."""
NARROW = 256
"""Hidden width below which products are too small to gain anything, so that nothing is measured."""
PROBE_TOKENS, PROBE_WIDTH, PROBE_INNER, PROBE_ROUNDS = 256, 1024, 4096, 3
"""Size of the products that are measured, and how often."""
GAIN = 1.2
"""How many times as fast bfloat16 must be, to be worth its rounding."""
STORED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def choose(dtype: Dtype, device: torch.device, config: Any, kept: str = "") -> torch.dtype:
    """The type that `dtype` stands for where a model of this configuration computes on `device`.

    "auto" is bfloat16 on a GPU that has it, and on a CPU that has it where products of the model's size are measured to
    be faster in it. `kept` is what an earlier run chose: "auto" stays with it where the device has it, since a
    measurement may come out otherwise next time. Raises InvalidInput for a type that the device lacks.
    """
    if dtype != "auto":
        if dtype == "bfloat16" and not has_bfloat16(device) and device.type == "cuda":
            raise InvalidInput(
                f"dtype is 'bfloat16', and {torch.cuda.get_device_name(device)} computes none: use 'float32' or 'auto'"
            )
        return getattr(torch, dtype)
    if not has_bfloat16(device):
        return torch.float32
    if kept:
        return getattr(torch, kept)
    if device.type == "cuda":
        return torch.bfloat16
    width = int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    return torch.bfloat16 if width >= NARROW and _is_faster(width, inner, torch.get_num_threads()) else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _cpu_has_bfloat16()


def name(dtype: torch.dtype) -> str:
    """As settings say it."""
    return str(dtype).removeprefix("torch.")


def computing(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """While the block runs products are computed in `dtype`, of weights and states that are float32.

    What the block gives may be float32 or `dtype`. Gradients are of the weights' own type.
    """
    if dtype.itemsize >= torch.float32.itemsize:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


@dataclass(frozen=True, slots=True)
class Written:
    """The types of the tensors of a model's files: `by_name`, and the one that most values have."""

    by_name: Mapping[str, torch.dtype]
    usual: torch.dtype = torch.float32

    @classmethod
    def of(cls, folder: Path) -> "Written":
        """Of the weights in `folder`; of a folder without weights float32."""
        by_name: dict[str, torch.dtype] = {}
        sizes: dict[torch.dtype, int] = {}
        for path in weight_files(folder):
            for name, tensor in read_header(path).items():
                if (dtype := STORED.get(tensor.dtype)) is not None:
                    by_name[name] = dtype
                    sizes[dtype] = sizes.get(dtype, 0) + tensor.end - tensor.start
        return cls(by_name, max(sizes, key=sizes.__getitem__)) if sizes else cls({})

    def adapter(self) -> "Written":
        """Of an adapter on such a model: the type of most of its weights."""
        return Written({}, self.usual)

    def __call__(self, name: str) -> torch.dtype:
        """Of the tensor `name`, also of a model's part; float32, which every engine takes, where files of mixed types
        do not say it."""
        if len(set(self.by_name.values())) <= 1:
            return self.usual
        found = (dtype for known, dtype in self.by_name.items() if known == name or known.endswith(f".{name}"))
        return next(found, torch.float32)


@contextmanager
@torch.no_grad()
def rounded(parameters: Mapping[str, nn.Parameter], written: Callable[[str], torch.dtype]) -> Iterator[None]:
    """While the block runs the parameters have the values that they would have after being written and read again."""
    before: dict[str, Tensor] = {}
    try:
        for name, parameter in parameters.items():
            if (dtype := written(name)) != parameter.dtype:
                before[name] = parameter.detach().clone()
                parameter.copy_(parameter.to(dtype))
        yield
    finally:
        for name, tensor in before.items():
            parameters[name].copy_(tensor)


@functools.cache
def _cpu_has_bfloat16() -> bool:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    words = {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split()}
    return not words.isdisjoint(CPU_FLAGS)


@functools.cache
def _is_faster(width: int, inner: int, threads: int) -> bool:
    """Whether this CPU, with so many threads, takes clearly less time in bfloat16 for a layer's forward and backward
    pass. The processor's time counts, and the quickest of a few rounds, as others use the machine too."""
    width, inner = min(width, PROBE_WIDTH), min(inner, PROBE_INNER)
    up = torch.full((inner, width), 0.01, requires_grad=True)
    down = torch.full((width, inner), 0.01, requires_grad=True)
    states = torch.full((PROBE_TOKENS, width), 0.5)

    def seconds(dtype: torch.dtype) -> float:
        begun = time.process_time()
        with torch.enable_grad(), computing(torch.device("cpu"), dtype):
            done = functional.linear(functional.silu(functional.linear(states, up)), down)
        done.float().sum().backward()
        return time.process_time() - begun

    rounds = [(seconds(torch.bfloat16), seconds(torch.float32)) for _ in range(1 + PROBE_ROUNDS)][1:]
    narrow, wide = map(min, zip(*rounds, strict=True))
    return GAIN * narrow < wide
