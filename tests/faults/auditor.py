"""What became of every acknowledged event, counted only from files and topics: the check that trusts nobody.

    python -m tests.faults.auditor --state DIR --acknowledged FILE [--kafka host:port,…] [--prefix rlhf]

It shares no code with what it checks: nothing of the project is imported but the compiled protos, and log, ledger and
checkpoint are read by code of its own. FILE holds an acknowledged event id a line, as clients noted them.

    accepted                = in the log, be it in Kafka or still in the spool
    votes in the log        = trained + held out + pending + orphaned + dead-lettered + withdrawn + erased

An id that no side of an equation names is lost or unaccounted; one that the ledger names twice was taken twice.
"""

import argparse
import base64
import hashlib
import json
import struct
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crc32c

from rlhf_online.proto.rlhf.v1 import events_pb2

DISPOSITIONS = ("trained", "held_out", "orphaned", "dead_lettered", "rollout", "withdrawn", "erased")
GROUP_START = 1 << 31


@dataclass(frozen=True, slots=True)
class Seen:
    """A record where it was found; `vote` says that it is a feedback."""

    event_id: str
    vote: bool
    partition: str
    offset: int


@dataclass(slots=True)
class Report:
    """The books. `problems` says what is wrong with them, a sentence each."""

    accepted: int
    in_kafka: int = 0
    spooled: int = 0
    fate: Counter[str] = field(default_factory=Counter)
    lost: set[str] = field(default_factory=set)
    unaccounted: set[str] = field(default_factory=set)
    twice: int = 0

    @property
    def problems(self) -> list[str]:
        said = []
        if self.lost:
            said.append(f"{len(self.lost)} acknowledged events are lost, such as {min(self.lost)}")
        if self.unaccounted:
            said.append(f"{len(self.unaccounted)} votes were passed over, such as {min(self.unaccounted)}")
        if self.twice:
            said.append(f"{self.twice} events were taken twice")
        return said


def audit(state: Path, acknowledged: Collection[str], *, kafka: str = "", prefix: str = "rlhf") -> Report:
    """Check both equations for the ids that clients hold an acknowledgement for."""
    spool = list(_spool(state / "log"))
    shipped = _shipped(state / "log")
    log = list(_topics(kafka, prefix)) if kafka else spool
    waiting = {seen.event_id for seen in spool if seen.offset >= shipped} if kafka else set[str]()
    place, ledger, pending = _checkpoint(state / "checkpoints")
    taken = Counter(digest for _, digest in ledger)
    ours = set(acknowledged)
    present = {seen.event_id for seen in log}
    pending |= {seen.event_id for seen in log if seen.vote and seen.offset >= place.get(seen.partition, 0)}
    report = Report(
        accepted=len(ours), in_kafka=len(present & ours) if kafka else 0, spooled=len((waiting - present) & ours)
    )
    report.lost = ours - present - waiting
    report.twice = sum(count - 1 for count in taken.values())
    by_digest = {digest(event_id): event_id for event_id in ours}
    report.fate.update(DISPOSITIONS[number] for number, digest in ledger if digest in by_digest)
    votes = {seen.event_id for seen in log if seen.vote} & ours
    untaken = {event_id for event_id in votes if digest(event_id) not in taken}
    report.fate["pending"] = len(untaken & pending)
    report.unaccounted = untaken - pending
    return report


def _spool(folder: Path) -> Iterator[Seen]:
    """Whole records with a right checksum, segment by segment; what a later segment's name cuts off does not count."""
    firsts = sorted(int(path.stem) for path in folder.glob("*.log") if path.stem.isdigit())
    for first, following in zip(firsts, [*firsts[1:], 1 << 63], strict=False):  # there may be none
        data, at, number = (folder / f"{first:020d}.log").read_bytes(), 0, first
        while at + 12 <= len(data) and number < following:
            word, place, crc = struct.unpack_from("<III", data, at)
            payload = data[at + 12 : at + 12 + (word & (GROUP_START - 1))]
            if (
                not payload
                or crc32c.crc32c(payload, crc32c.crc32c(data[at : at + 8])) != crc
                or first + place != number
            ):
                break
            yield from _seen(payload, "local", number)
            at, number = at + 12 + len(payload), number + 1


def _shipped(folder: Path) -> int:
    try:
        return int(json.loads((folder / "shipped.json").read_text())["shipped"])
    except FileNotFoundError:
        return 0


def _topics(servers: str, prefix: str) -> Iterator[Seen]:
    """Everything that Kafka holds."""
    from kafka import KafkaConsumer
    from kafka.structs import TopicPartition

    consumer: Any = KafkaConsumer(bootstrap_servers=servers.split(","), group_id=None, auto_offset_reset="earliest")
    try:
        names = [f"{prefix}.completions", f"{prefix}.feedback"]
        partitions = [TopicPartition(name, n) for name in names for n in consumer.partitions_for_topic(name) or ()]
        consumer.assign(partitions)
        end = consumer.end_offsets(partitions)
        consumer.seek_to_beginning(*partitions)
        while any(consumer.position(partition) < end[partition] for partition in partitions):
            for partition, batch in consumer.poll(timeout_ms=500).items():
                for message in batch:
                    yield from _seen(message.value, f"{partition.topic}/{partition.partition}", message.offset)
    finally:
        consumer.close()


def _seen(payload: bytes, partition: str, offset: int) -> Iterator[Seen]:
    envelope = events_pb2.Envelope()
    try:
        envelope.ParseFromString(payload)
    except Exception:  # protobuf's DecodeError: a record that is no event has no id
        return
    yield Seen(envelope.event_id, envelope.WhichOneof("event") == "feedback", partition, offset)


def _checkpoint(folder: Path) -> tuple[dict[str, int], list[tuple[int, bytes]], set[str]]:
    """Of the newest one: its position, the ledger's entries, and the ids of the votes that wait in it."""
    manifests = [path for path in folder.glob("*/manifest.json") if path.parent.name.isdigit()]
    if not manifests:
        return {}, [], set()
    newest = max(manifests, key=lambda path: int(path.parent.name))
    manifest = json.loads(newest.read_text())
    entries: list[tuple[int, bytes]] = []
    for name in manifest["ledger"]:
        data = (folder / "ledger" / name).read_bytes()
        entries += [(data[at], data[at + 1 : at + 17]) for at in range(0, len(data), 17)]
    intake = json.loads((newest.parent / "intake.json").read_text())
    texts = [*intake["join"]["pending"], *intake["join"]["pushed_out"]]
    held = {seen.event_id for text in texts for seen in _seen(base64.b64decode(text), "join", 0)}
    held |= {vote["event_id"] for vote in intake["votes"]}
    return manifest["log"]["position"], entries, held


def digest(event_id: str) -> bytes:
    return hashlib.blake2b(event_id.encode(), digest_size=16).digest()


def main() -> int:
    """Print the books; exit code 1 if they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.auditor", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--state", type=Path, required=True, help="state folder of the services")
    parser.add_argument("--acknowledged", type=Path, required=True, help="file of acknowledged event ids, one a line")
    parser.add_argument("--kafka", default="", help="brokers, host:port,host:port; without it the local log is the log")
    parser.add_argument("--prefix", default="rlhf", help="first part of the topics' names")
    given = parser.parse_args()
    report = audit(given.state, given.acknowledged.read_text().split(), kafka=given.kafka, prefix=given.prefix)
    fate = ", ".join(f"{name} {count}" for name, count in sorted(report.fate.items()))
    places = f"in Kafka {report.in_kafka}, spooled {report.spooled}"
    print(f"accepted {report.accepted}: {places}; {fate}; twice {report.twice}")
    for problem in report.problems:
        print(problem, file=sys.stderr)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
