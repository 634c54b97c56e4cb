"""What waits for the disk: records that are appended from many threads, taken out in groups by the one that writes."""

import threading
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog.segments import group_size

Group = list[tuple[tuple[bytes, ...], Future[int]]]
"""Of each that was put in together its records, which stay together, and their one future."""


class AppendQueue:
    """At most `max_bytes` of records, and the futures of those who wait for them; `folder` is named in messages.

    A group takes up to `group_bytes` on the disk.
    """

    def __init__(self, folder: Path, max_bytes: int, *, group_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._group_bytes = group_bytes
        self._waiting: deque[tuple[tuple[bytes, ...], Future[int]]] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, *payloads: bytes) -> Future[int]:
        """Records that go into one group. Raises LogUnavailable if the queue is closed or full."""
        future: Future[int] = Future()
        size = sum(map(len, payloads))
        with self._changed:
            if self._closed:
                raise LogUnavailable(f"the log in {self._folder} is closed: open it again")
            if self._bytes and self._bytes + size > self._max_bytes:
                raise LogUnavailable(
                    f"{self._bytes} bytes wait for the disk of {self._folder} already: it is too slow, or stuck;"
                    " send the event again later"
                )
            self._waiting.append((payloads, future))
            self._bytes += size
            self._changed.notify()
        return future

    def take(self, timeout_s: float | None) -> Group | None:
        """All that waits, up to the size of a group; nothing after `timeout_s`, None once closed and empty.

        Records whose future was cancelled are left out.
        """
        group: Group = []
        size = 0
        with self._changed:
            while not self._waiting and not self._closed:
                if not self._changed.wait(timeout_s):
                    return []
            if not self._waiting:
                return None
            while self._waiting:
                payloads, future = self._waiting[0]
                size += group_size(payloads)
                if group and size > self._group_bytes:
                    break
                self._waiting.popleft()
                self._bytes -= sum(map(len, payloads))
                if future.set_running_or_notify_cancel():
                    group.append((payloads, future))
        return group

    def close(self) -> None:
        """Take no more; what waits can still be taken out."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def fail(self) -> None:
        """Close it, and fail all that still waits: nobody will take it out any more."""
        self.close()
        while self._waiting:
            _, future = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                future.set_exception(LogUnavailable(f"the writer of the log in {self._folder} stopped"))
