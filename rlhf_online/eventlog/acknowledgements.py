"""Awaiting appends on an event loop, a whole group at a time.

The log's writer resolves the futures of a group one after another. To wake the loop for each of them, as
`asyncio.wrap_future` does, costs more than the append itself; here it is woken once for all that are resolved by then.
"""

import asyncio
from collections import deque
from concurrent.futures import Future


class Acknowledgements:
    """Use from one event loop, the running one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._resolved: deque[tuple[asyncio.Future[int], Future[int]]] = deque()
        self._woken = False

    async def of(self, appended: Future[int], within_s: float) -> int:
        """What `appended` resolves to, or raises; TimeoutError after `within_s`.

        Being late, or cancelled, leaves the append as it is.
        """
        waiter: asyncio.Future[int] = self._loop.create_future()
        appended.add_done_callback(lambda done: self._put(waiter, done))
        timer = self._loop.call_later(within_s, _late, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()

    def _put(self, waiter: asyncio.Future[int], done: Future[int]) -> None:
        """Called by the writer's thread, or at once by the loop's."""
        self._resolved.append((waiter, done))
        if not self._woken and not self._loop.is_closed():
            self._woken = True
            self._loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._woken = False  # before the queue is emptied: what comes from now on wakes the loop again
        while self._resolved:
            waiter, done = self._resolved.popleft()
            if waiter.done():
                continue
            if done.cancelled():
                waiter.cancel()
            elif (error := done.exception()) is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(done.result())


def _late(waiter: asyncio.Future[int]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
