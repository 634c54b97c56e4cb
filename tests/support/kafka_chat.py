"""What a chat service does to a log that is shipped to Kafka, and the count of what became of it."""

import uuid
from pathlib import Path

from rlhf_online.config import KafkaSettings, LogSettings
from rlhf_online.eventlog import open_sink, open_source
from rlhf_online.eventlog.base import Sink
from rlhf_online.events import Completion
from rlhf_online.wire import decode, encode
from tests.faults.auditor import audit
from tests.support.logged import completion
from tests.support.waiting import until

ONE_BROKER = KafkaSettings()


class Chat:
    """Events go in, one after another, of as many conversations as there are `talks`.

    `address` is the brokers' ("host:port,…").
    """

    def __init__(self, address: str, state: Path, *, talks: int = 1, kafka: KafkaSettings = ONE_BROKER) -> None:
        self.address, self.state, self._talks = address, state, talks
        self.prefix = f"t{uuid.uuid4().hex[:8]}"
        self.settings = LogSettings(url=f"kafka://{address}", topic_prefix=self.prefix, kafka=kafka)
        self.sink: Sink = open_sink(self.settings, state / "log")
        self.acknowledged: list[str] = []

    @property
    def shipped(self) -> int:
        return len(self.acknowledged) - self.sink.shipping().backlog

    def log(self, count: int) -> None:
        """`count` answers of about 1 KiB, each acknowledged."""
        first = len(self.acknowledged)
        names = [f"answer-{number}" for number in range(first, first + count)]
        futures = [self.sink.append(self._payload(number)) for number in range(first, first + count)]
        for name, future in zip(names, futures, strict=True):
            future.result(30)
            self.acknowledged.append(name)

    def arrived(self) -> None:
        until(lambda: self.shipped == len(self.acknowledged), 240, "everything to be shipped")

    def check(self) -> int:
        """The books are right, and each conversation's first arrivals in order; how many records came twice."""
        report = audit(self.state, self.acknowledged, kafka=self.address, prefix=self.prefix)
        assert report.problems == []
        assert (report.in_kafka, report.spooled) == (len(self.acknowledged), 0)
        payloads = self._read()
        arrived: dict[str, list[str]] = {}
        for payload in dict.fromkeys(payloads):
            event = decode(payload).event
            assert isinstance(event, Completion)
            arrived.setdefault(event.conversation_id, []).append(event.completion_id)
        assert set(payloads) == {self._payload(number) for number in range(len(self.acknowledged))}
        for talk in range(self._talks):
            assert arrived[f"talk-{talk}"] == self.acknowledged[talk :: self._talks]
        return len(payloads) - len(self.acknowledged)

    def _read(self) -> list[bytes]:
        """All that Kafka has, in the order in which a trainer reads it."""
        source = open_source(self.settings, self.state / "log")
        payloads: list[bytes] = []
        position: dict[str, int] = {}
        while True:
            records, position = source.read(position, 1000)
            if not records:
                break
            payloads += [record.payload for record in records]
        source.close()
        return payloads

    def _payload(self, number: int) -> bytes:
        return encode(completion(f"answer-{number}", prompt=range(300), conversation=f"talk-{number % self._talks}"))
