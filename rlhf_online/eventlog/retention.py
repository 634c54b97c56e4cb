"""Which segments of a local log are removed, once every reader has consumed them."""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlhf_online.durable import fsync_folder
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.segments import segment_name


@dataclass(frozen=True, slots=True)
class Retention:
    """What is removed once it is consumed: segments beyond `max_bytes` in all, or older than `max_age_s`.

    A segment's age is that of its last record, and it begins at most `max_age_s` before that. Infinity: no limit. The
    writer looks every `check_s` seconds.
    """

    max_bytes: float = math.inf
    max_age_s: float = math.inf
    check_s: float = 60.0

    @property
    def limited(self) -> bool:
        return min(self.max_bytes, self.max_age_s) < math.inf

    def is_old(self, stat: os.stat_result) -> bool:
        return time.time() - stat.st_mtime > self.max_age_s


KEEP_ALL = Retention()


def remove_expired(folder: Path, retention: Retention, needed: int) -> Iterator[int]:
    """Remove segments, oldest first, none with a record from `needed` on; yields the first number of each.

    The last segment stays, since its name says how many records there were. Raises OSError.
    """
    firsts = files.segments(folder)
    stats = [(folder / segment_name(first)).stat() for first in firsts]
    total = sum(stat.st_size for stat in stats)
    for first, end, stat in zip(firsts, firsts[1:], stats, strict=False):
        if end > needed or not (total > retention.max_bytes or retention.is_old(stat)):
            return
        (folder / segment_name(first)).unlink()
        fsync_folder(folder)  # one by one, so that a power failure leaves no gap
        total -= stat.st_size
        yield first
