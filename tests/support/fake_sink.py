"""An event log in memory that can be told to fail."""

from concurrent.futures import Future

from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog.base import Shipping
from rlhf_online.events import Completion, Envelope, Feedback, VersionChange
from rlhf_online.wire import decode


class FakeSink:
    """Acknowledges at once. `failing`: "raise" (append raises), "future" (the acknowledgement fails), "" (works)."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.failing = ""
        self.closed = False
        self.ships = Shipping()

    def append(self, payload: bytes) -> "Future[int]":
        if self.failing == "raise":
            raise LogUnavailable("the disk is full: make room")
        future: Future[int] = Future()
        if self.failing == "future":
            future.set_exception(LogUnavailable("fsync failed: look at the disk"))
            return future
        self.records.append(payload)
        future.set_result(len(self.records) - 1)
        return future

    def shipping(self) -> Shipping:
        return self.ships

    def close(self) -> None:
        self.closed = True

    @property
    def envelopes(self) -> list[Envelope]:
        return [decode(record) for record in self.records]

    @property
    def completions(self) -> list[Completion]:
        return [e.event for e in self.envelopes if isinstance(e.event, Completion)]

    @property
    def feedback(self) -> list[Feedback]:
        return [e.event for e in self.envelopes if isinstance(e.event, Feedback)]

    @property
    def changes(self) -> list[VersionChange]:
        return [e.event for e in self.envelopes if isinstance(e.event, VersionChange)]
