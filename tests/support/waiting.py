"""Waiting for what must come, without guessing how long it takes."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Ask again and again until `condition()` is true; fail after `timeout_s`, saying what did not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain for {what}")
        time.sleep(0.01)
