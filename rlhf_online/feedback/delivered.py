"""Which records of which spool were taken: exactly, in a few bytes, whatever came late, twice or never. Pure.

A high-water mark would not do: when deliveries fail, a record may come after its successors, and one that Kafka refused
never comes. So every number is known, in chunks of 1024: a chunk whose numbers all came is part of a run, and only the
others are kept as bits. Records that come about in order make one run; each that never comes costs one chunk.
"""

import bisect
from collections.abc import Mapping
from typing import Any, Self

_CHUNK = 1024
_FULL = (1 << _CHUNK) - 1


class IntervalSet:
    """A set of whole numbers ≥ 0, most of them in runs."""

    def __init__(self) -> None:
        self._partial: dict[int, int] = {}
        # Runs of full chunks: the r-th begins at chunk _begins[r] and ends before chunk _ends[r].
        self._begins: list[int] = []
        self._ends: list[int] = []

    def add(self, number: int) -> bool:
        """Take the number in; False if it was there."""
        chunk, place = divmod(number, _CHUNK)
        at = bisect.bisect_right(self._begins, chunk) - 1
        if at >= 0 and chunk < self._ends[at]:
            return False
        mask = self._partial.get(chunk, 0)
        if mask >> place & 1:
            return False
        mask |= 1 << place
        if mask != _FULL:
            self._partial[chunk] = mask
            return True
        self._partial.pop(chunk, None)
        self._finish(chunk, at)
        return True

    def _finish(self, chunk: int, at: int) -> None:
        """Make the chunk part of a run; `at` is the last run that begins before it, −1 for none."""
        before = at >= 0 and self._ends[at] == chunk
        after = at + 1 < len(self._begins) and self._begins[at + 1] == chunk + 1
        if before and after:
            self._ends[at] = self._ends.pop(at + 1)
            del self._begins[at + 1]
        elif before:
            self._ends[at] += 1
        elif after:
            self._begins[at + 1] -= 1
        else:
            self._begins.insert(at + 1, chunk)
            self._ends.insert(at + 1, chunk + 1)

    def to_json(self) -> dict[str, Any]:
        partial = {str(chunk): f"{mask:x}" for chunk, mask in sorted(self._partial.items())}
        return {"runs": [list(run) for run in zip(self._begins, self._ends, strict=True)], "partial": partial}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        numbers = cls()
        numbers._begins = [begin for begin, _ in values["runs"]]
        numbers._ends = [end for _, end in values["runs"]]
        numbers._partial = {int(chunk): int(mask, 16) for chunk, mask in values["partial"].items()}
        return numbers


class DeliveredOffsets:
    """The records that were taken, by the spool that they were shipped from and their number there."""

    def __init__(self) -> None:
        self._spools: dict[str, IntervalSet] = {}

    def add(self, spool: str, number: int) -> bool:
        """Take the record in; False if it was taken before."""
        return self._spools.setdefault(spool, IntervalSet()).add(number)

    def to_json(self) -> dict[str, Any]:
        return {spool: numbers.to_json() for spool, numbers in self._spools.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        taken = cls()
        taken._spools = {spool: IntervalSet.from_json(item) for spool, item in values.items()}
        return taken
