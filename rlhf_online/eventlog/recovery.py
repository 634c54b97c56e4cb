"""Recovery of a local log by its next writer: find where the log ends, however the last writer ended.

A torn tail is cut, and the rest is made durable. Damage to what was acknowledged is reported and left in place, for
readers to make dead letters of; nothing is appended behind it, and its numbers are never given to other records.
"""

from pathlib import Path

import structlog

from rlhf_online.durable import fsync_folder
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.committed import Committed, CommittedFile
from rlhf_online.eventlog.segment_writer import SegmentWriter
from rlhf_online.eventlog.segments import Scan, scan, segment_name


def recover(folder: Path, identity: str, committed: CommittedFile, segment: SegmentWriter) -> int:
    """The next sequence number of the log of that identity; `segment` is ready for it. Raises OSError."""
    log = structlog.get_logger()
    known = committed.read()
    firsts = files.segments(folder)
    end, lost = 0, False
    if firsts:
        end, lost = _reopen_last(folder, firsts[-1], known, segment)
    elif known.records:
        lost = True
        log.error("every segment is missing", folder=str(folder), records=known.records)
    if lost:
        end = max(end + 1, known.records)
    if (consumed := files.highest_consumed(folder, identity)) > end:
        log.error("records are missing that were read", folder=str(folder), from_=end)
        lost, end = True, consumed
    if lost:
        segment.begin(end)
    committed.write(end)
    committed.sync()
    fsync_folder(folder)
    return end


def _reopen_last(folder: Path, first: int, known: Committed, segment: SegmentWriter) -> tuple[int, bool]:
    """Where the last segment ends, and whether acknowledged records of it are damaged or gone."""
    data = segment.reopen(first)
    found = scan(data)
    end = first + found.records
    lost = found.damaged or end < known.records
    _report(folder / segment_name(first), found, lost)
    # What the last writer did not live to fsync is written again.
    rewrite = end > known.records or not known.current
    segment.restore(data, len(data) if lost else found.good_bytes, rewrite=rewrite)
    return end, lost


def _report(path: Path, found: Scan, lost: bool) -> None:
    """Log which acknowledged records are damaged or missing."""
    log = structlog.get_logger()
    for hole in found.holes:
        log.error("damaged records", file=str(path), offset=hole.offset, bytes=hole.size, records=hole.records)
    if lost:
        log.error("the last records are damaged or missing", file=str(path), offset=found.good_bytes)
