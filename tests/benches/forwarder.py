"""How fast the forwarder ships and the source reads: `python -m tests.benches.forwarder [--records 50000] [--json]`.

A real broker on this machine; a spool of events of about 1 KiB. In each round, in turns: a bare kafka-python producer
sends the same messages (key and headers too) with the forwarder's own options, and the forwarder ships the spool; a
bare consumer polls the topic to its end with the source's own options, and the source reads it, 1,000 records at a
time as the trainer does. Every run counts from its first connection to its last confirmation or record; the topics are
there before. Figures are medians over the rounds, ratios of the runs of one round.
"""

import argparse
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from kafka.structs import TopicPartition

from rlhf_online.config import LogSettings
from rlhf_online.eventlog import kafka_cluster
from rlhf_online.eventlog.kafka import Cluster, KafkaSource, topics
from rlhf_online.eventlog.kafka.cluster import force_close
from rlhf_online.eventlog.kafka.forwarder import Forwarder, new_producer
from rlhf_online.eventlog.kafka.source import new_consumer
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.spool import Spool
from rlhf_online.wire import encode, peek
from tests.benches.support.figures import show
from tests.support.kafka_broker import Broker
from tests.support.logged import completion

DELIVERY_S = 20.0
READ = 1000


def events(count: int) -> list[bytes]:
    """Completions of about 1 KiB, each of another conversation."""
    prompt, answers = range(1000, 1100), [range(500, 530)] * 2
    return [
        encode(completion(str(uuid.uuid4()), prompt=prompt, answers=answers, conversation=str(uuid.uuid4())))
        for _ in range(count)
    ]


def fill(folder: Path, payloads: list[bytes]) -> None:
    """Make `folder` a spool of these records."""
    with LocalLog(folder) as log:
        for begin in range(0, len(payloads), 10_000):
            for future in [log.append(payload) for payload in payloads[begin : begin + 10_000]]:
                future.result()


def new_topics(broker: Broker) -> Cluster:
    cluster = kafka_cluster(LogSettings(url=f"kafka://{broker.address}", topic_prefix=f"b{uuid.uuid4().hex[:8]}"))
    assert cluster is not None
    topics.ensure(cluster)
    return cluster


def produce(broker: Broker, payloads: list[bytes]) -> float:
    """Records a second of a bare producer."""
    cluster = new_topics(broker)
    spool = str(uuid.uuid4()).encode()
    messages: list[dict[str, Any]] = []
    for number, payload in enumerate(payloads):
        header = peek(payload)
        headers = {"schema_version": b"1", "event_id": header.event_id.encode(), "spool": spool}
        headers["sequence"] = str(number).encode()
        messages.append({"key": header.key.encode(), "value": payload, "headers": list(headers.items())})
    begin = time.perf_counter()
    producer = new_producer(cluster, DELIVERY_S)
    for delivery in [producer.send(f"{cluster.prefix}.completions", **message) for message in messages]:
        delivery.get(DELIVERY_S)
    took = time.perf_counter() - begin
    force_close(producer)
    return len(payloads) / took


def ship(broker: Broker, folder: Path, count: int) -> tuple[float, Cluster]:
    """Records a second of the forwarder, and where they are."""
    cluster = new_topics(broker)
    (folder / "shipped.json").unlink(missing_ok=True)
    spool = Spool(folder)
    begin = time.perf_counter()
    forwarder = Forwarder(spool, cluster, delivery_s=DELIVERY_S)
    while forwarder.shipped < count:
        time.sleep(0.002)
    took = time.perf_counter() - begin
    forwarder.close()
    assert not forwarder.failures
    return count / took, cluster


def consume(cluster: Cluster, count: int) -> float:
    """Records a second of a bare consumer."""
    begin = time.perf_counter()
    consumer = new_consumer(cluster)
    partitions = [TopicPartition(f"{cluster.prefix}.{name}", 0) for name in topics.EVENTS]
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, 0)
    got = 0
    while got < count:
        got += sum(len(batch) for batch in consumer.poll(timeout_ms=200, max_records=READ).values())
    took = time.perf_counter() - begin
    consumer.close(autocommit=False)
    return count / took


def read(cluster: Cluster, count: int) -> float:
    """Records a second of the source."""
    begin = time.perf_counter()
    source = KafkaSource(cluster)
    position: dict[str, int] = {}
    got = 0
    while got < count:
        records, position = source.read(position, READ)
        got += len(records)
    took = time.perf_counter() - begin
    source.close()
    return count / took


def measure(folder: Path, records: int, rounds: int) -> dict[str, float | int | str]:
    """A first round warms up and is dropped."""
    payloads = events(records)
    fill(folder / "log", payloads)
    broker = Broker(folder / "kafka")
    broker.start()
    runs: dict[str, list[float]] = {"producer": [], "forwarder": [], "consumer": [], "source": []}
    try:
        for number in range(rounds + 1):
            produced = produce(broker, payloads)
            shipped, cluster = ship(broker, folder / "log", records)
            consumed = consume(cluster, records)
            got = read(cluster, records)
            if number:
                for name, rate in zip(runs, (produced, shipped, consumed, got), strict=True):
                    runs[name].append(rate)
    finally:
        broker.stop()

    def ratio(ours: str, bare: str) -> list[float]:
        return sorted(a / b for a, b in zip(runs[ours], runs[bare], strict=True))

    forward, reading = ratio("forwarder", "producer"), ratio("source", "consumer")
    return {
        "records": records,
        "record_bytes": round(statistics.mean(map(len, payloads))),
        **{f"{name}_per_s": round(statistics.median(rates)) for name, rates in runs.items()},
        "forward_ratio": round(statistics.median(forward), 3),
        "forward_ratios": f"{forward[0]:.2f}-{forward[-1]:.2f}",
        "read_ratio": round(statistics.median(reading), 3),
        "read_ratios": f"{reading[0]:.2f}-{reading[-1]:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to write; default: a new folder in the current one")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix=".bench-forwarder-") as folder:
        show(measure(Path(folder), options.records, options.rounds), as_json=options.json)


if __name__ == "__main__":
    main()
