"""The records that the log begins and ends with: whether this release reads them."""

from collections import Counter
from collections.abc import Iterator

from rlhf_online.doctor.finding import Finding, ok, refuse
from rlhf_online.errors import LogError, UndecodableEvent
from rlhf_online.eventlog.base import Record, Source
from rlhf_online.events import SCHEMA_VERSION
from rlhf_online.wire import peek

SAMPLE = 100
"""Records of each end of a partition."""


def records(source: Source, where: str) -> list[Finding]:
    """What cannot be read becomes dead letters, votes too, so it is no small thing."""
    try:
        sampled = list(_sample(source))
    except LogError as error:
        return [refuse(f"records in {where}", str(error), "see log.url")]
    wrong: Counter[str] = Counter()
    first: dict[str, int] = {}
    for record in sampled:
        if why := record.damage or _unreadable(record):
            wrong[f"{record.partition}: {why}"] += 1
            first.setdefault(f"{record.partition}: {why}", record.offset)
    if not wrong:
        return [ok(f"records in {where}", f"{len(sampled)} looked at, all of schema version {SCHEMA_VERSION}")]
    return [
        refuse(
            f"records in {where}",
            f"{why} ({count} of {len(sampled)} looked at, the first at offset {first[why]})",
            "run the release that wrote them until they are read, or let them become dead letters",
        )
        for why, count in sorted(wrong.items())
    ]


def _unreadable(record: Record) -> str:
    """Why this release cannot read it, "" if it can."""
    try:
        peek(record.payload)
    except UndecodableEvent as error:
        return str(error)
    return ""


def _sample(source: Source) -> Iterator[Record]:
    """Those that each partition begins with, and those before its end. Raises LogError."""
    end = source.end()
    begin, _ = source.resume_position(source.identity(), dict.fromkeys(end, 0))
    for partition, last in end.items():
        at = begin.get(partition, 0)
        for start in {at, max(at + SAMPLE, last - SAMPLE)}:
            if start < last:  # the others have nothing to say
                yield from source.read({**end, partition: start}, SAMPLE)[0]
