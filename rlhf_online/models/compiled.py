"""Layers compiled by `torch.compile`, each by itself: the code of one is that of all, so that it is made once.

What a layer does besides its products (norms, rotations, casts, activations) is then a few kernels instead of dozens,
which on a GPU is a third of the time of a step. It costs seconds when a process begins, and again when a layer is first
used in another way (without gradients, with an adapter off); torch keeps the kernels in TORCHINDUCTOR_CACHE_DIR.

Only on a GPU, and for models whose products are large enough to be worth it. Whether it can be done here (a lean image
may lack the C compiler that it needs) and computes the same is tried once. TORCH_COMPILE_DISABLE=1 turns it off.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import structlog
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from rlhf_online.models.precision import NARROW

WAYS = 64
"""Ways of use of a layer that are compiled before torch goes on without: of several models in one process, with
gradients and without, adapters on and off."""
TOLERANCE = 0.1
"""Between states of the compiled and of the plain model, both of them rounded to bfloat16 many times."""


P = ParamSpec("P")
R = TypeVar("R")


@functools.cache
def available() -> bool:
    """Whether there is a GPU here, and what torch needs to make kernels for it."""
    if not torch.cuda.is_available():
        return False
    try:
        torch.compile(torch.special.entr, dynamic=True)(torch.ones(2, 3, device="cuda"))
    except Exception as error:  # of a compiler, which may fail in any way
        structlog.get_logger().warning("nothing is compiled, and training is slower", reason=_first_line(error))
        return False
    return True


def fused(function: Callable[P, R]) -> Callable[P, R]:
    """`function` of tensors as one kernel or a few, where its first argument is on a GPU, and as it is elsewhere."""

    @functools.cache
    def kernel() -> Callable[P, R]:
        made: Any = torch.compile(function, dynamic=True)
        return made

    @functools.wraps(function)
    def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
        first = args[0]
        on_gpu = isinstance(first, Tensor) and first.is_cuda and available()
        return (kernel() if on_gpu else function)(*args, **kwargs)

    return chosen


def compile_layers(model: nn.Module, width: int, tried: Callable[[], Tensor]) -> bool:
    """Compile the layers of `model` if it has a hidden width worth it and `tried()`, some of its states with a
    gradient, is what it was before. False, with a warning that says why, if that fails."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if width < NARROW or not layers or not available():
        return False
    torch._dynamo.config.recompile_limit = max(WAYS, torch._dynamo.config.recompile_limit)  # noqa: SLF001
    plain, begun = tried().detach(), time.perf_counter()
    for layer in layers:
        layer.compile(dynamic=True)
    reason = ""
    try:
        states = tried()
        if states.requires_grad:
            states.float().sum().backward()
        if not torch.allclose(states.detach(), plain, rtol=TOLERANCE, atol=TOLERANCE):
            reason = "it computes something else"
    except Exception as error:  # of a compiler, which may fail in any way
        reason = _first_line(error)
    model.zero_grad(set_to_none=True)
    if reason:
        for layer in layers:
            layer._compiled_call_impl = None  # noqa: SLF001
        structlog.get_logger().warning("layers are not compiled, and slower", reason=reason)
        return False
    structlog.get_logger().info("layers compiled", layers=len(layers), seconds=round(time.perf_counter() - begun, 1))
    return True


@contextmanager
def plainly() -> Iterator[None]:
    """While the block runs nothing is compiled, and compiled layers run as they were written."""
    with torch.compiler.set_stance("force_eager"):
        yield


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
