"""One service below the supervisor: its lives, whether it is ready, how it ended, when it is started again.

A life begins with `start` and ends when the process does, or at once if none could be started (a full disk). After
each a wait follows that doubles up to a minute, and is the first one again after a good life. Nothing here gives up.
"""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhf_online.errors import ConfigError
from rlhf_online.retry import Backoff
from services.standalone.children import Name, read_ready
from services.standalone.processes import Child

GOOD_LIFE_S = 60.0
LONGEST_BACKOFF_S = 60.0


class Service:
    """Its process; `ready_file` is where that writes its ports.

    `was_ready`: in any life. `failed_starts`: ends since it was last ready. `short_lives`: ends since a good life.
    """

    def __init__(self, name: Name, child: Child, ready_file: Path, first_backoff_s: float) -> None:
        self.name: Name = name
        self.child = child
        self.was_ready = False
        self.failed_starts = self.short_lives = self.restarts = 0
        self.last_end = ""
        self._ready_file = ready_file
        self._backoff = Backoff(first_backoff_s, LONGEST_BACKOFF_S)
        self._started_s: float | None = None
        self._restart_at_s: float | None = None
        self._not_started = ""

    @property
    def started(self) -> bool:
        """Whether it has had a life."""
        return self._started_s is not None

    @property
    def exit_code(self) -> int | None:
        """Of the last life; None while it lasts, and if no process could be started."""
        return None if self._not_started else self.child.exit_code()

    @property
    def waits(self) -> bool:
        """Whether a life is over that `end` has told of."""
        return self._restart_at_s is not None

    @property
    def due(self) -> bool:
        """Whether it is to be started again now."""
        return self._restart_at_s is not None and time.monotonic() >= self._restart_at_s

    def start(self, prepare: Callable[[], object]) -> None:
        """Begin a life; `prepare` writes what the process reads."""
        self.restarts += self.started
        self._started_s, self._restart_at_s, self._not_started = time.monotonic(), None, ""
        try:
            self._ready_file.unlink(missing_ok=True)
            prepare()
            self.child.start()
        except (OSError, ConfigError) as error:  # what it reads could not be written
            self._not_started = f"could not be started ({error})"

    def ports(self) -> dict[str, int] | None:
        """Its ports in this life, None while it is not ready."""
        if self._not_started or self._started_s is None or (values := read_ready(self._ready_file)) is None:
            return None
        self.was_ready, self.failed_starts = True, 0
        return {use: port for use, port in values.items() if use != "pid"}

    def end(self) -> float | None:
        """Once for each life that is over: seconds until the next start, and `last_end` says how it ended."""
        if self._started_s is None or self.waits or (self.exit_code is None and not self._not_started):
            return None
        now = time.monotonic()
        code = self.exit_code
        self.last_end = self._not_started if code is None else f"ended with {_ending(code)}"
        if self.ports() is None:
            self.failed_starts += 1
        if now - self._started_s >= GOOD_LIFE_S:
            self.short_lives = 0
            self._backoff.reset()
        self.short_lives += 1
        delay = self._backoff.advance()
        self._restart_at_s = now + delay
        return delay

    def tail(self) -> str:
        """The end of what it wrote in this life."""
        try:
            return self.child.tail()
        except OSError as error:
            return f"(its log cannot be read: {error})"

    def status(self) -> dict[str, Any]:
        """For people and metrics; `state`: "waiting" for the others, "starting", "running", "restarting" (it ended)."""
        state = "starting" if self.started else "waiting"
        if self.waits:
            state = "restarting"
        elif self.ports() is not None:
            state = "running"
        return {"state": state, "restarts": self.restarts, "last_end": self.last_end}


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
