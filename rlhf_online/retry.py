"""Exponential backoff: each wait is twice as long as the one before, up to a longest one."""


class Backoff:
    """How long to wait after each failure: `first_s` seconds, then twice as long each time, at most `longest_s`."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._next_s = first_s

    def advance(self) -> float:
        """Seconds to wait after another failure."""
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, self._longest_s)
        return wait_s

    def reset(self) -> None:
        """After a success: the next wait is the first one again."""
        self._next_s = self._first_s
