"""Waiting for what must come, without guessing how long it takes.

`until` is for plain tests, `eventually` for those on an event loop. Both ask again and again until the condition is
true, return what it gave, and fail after a time, saying what was not seen. An engine may take as long to start as the
product allows it.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from rlhf_online.config import EngineSettings

T = TypeVar("T")
ENGINE_START_S: float = EngineSettings.model_fields["start_timeout_s"].default
ENGINE_TEST_S = ENGINE_START_S + 600
"""Time limit of a test that starts an engine, for pytest."""


def until(condition: Callable[[], T], timeout_s: float, what: str | Callable[[], str], *, poll_s: float = 0.01) -> T:
    """The first true value of `condition()`. `what` names it for the failure, or tells it when it comes to that."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain for {what if isinstance(what, str) else what()}")
        time.sleep(poll_s)
    return value


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]], timeout_s: float = ENGINE_START_S, what: str = ""
) -> Any:
    """The first true value of `condition()`, awaited if need be."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain for {what or inspect.getsource(condition).strip()}")
        await asyncio.sleep(0.002)
