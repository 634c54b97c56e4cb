"""Retries: an operation that fails for now is tried again until it succeeds or the trainer must stop.

The reward service, the chat service, the log or the disk may be away for minutes; nothing is lost meanwhile, since
nothing of the cycle at hand is committed.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from rlhf_online.errors import CheckpointError, EngineUnavailable, LogUnavailable, RewardUnavailable, RlhfError
from rlhf_online.retry import Backoff

T = TypeVar("T")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0


class Stopped(RlhfError):
    """The trainer was asked to stop; what was not committed is done again after the next start."""


class Retrier:
    """`waiting(doing, error)` is told of every failure, so that people can be told."""

    def __init__(self, stop: threading.Event, waiting: Callable[[str, Exception], None]) -> None:
        self._stop = stop
        self.waiting = waiting

    def call(self, doing: str, action: Callable[[], T]) -> T:
        """What `action` returns once it succeeds. `doing` names it for people. Raises Stopped."""
        backoff = Backoff(FIRST_WAIT_S, LONGEST_WAIT_S)
        while True:
            self.check()
            try:
                return action()
            except (RewardUnavailable, EngineUnavailable, LogUnavailable, CheckpointError, OSError) as error:
                self.waiting(doing, error)
            self.sleep(backoff.advance())

    def sleep(self, seconds: float) -> None:
        """Raises Stopped as soon as the trainer must stop."""
        if self._stop.wait(seconds):
            raise Stopped("stopped")

    def check(self) -> None:
        """Raises Stopped if the trainer must stop."""
        self.sleep(0)
