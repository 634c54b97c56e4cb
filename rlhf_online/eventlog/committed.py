"""The file `committed`: how many records of a local log are acknowledged, which is what a reader may see.

It is why a reader never returns a record that a crash may take back. The writer overwrites it after each fsync, before
it acknowledges, without syncing it: a killed writer leaves it exact in the page cache, and a power failure can only
leave it too low, never too high. The id of the machine's boot stands in it, so that a reader that comes before the
writer after a power failure knows that the count may be low and waits, instead of reporting a loss.
"""

import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

_LAYOUT = struct.Struct("<Q16sI")  # records, boot id, CRC-32 of both
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Committed:
    """`records` are acknowledged; `current` is False if the machine was started anew since that was written."""

    records: int
    current: bool


class CommittedFile:
    """The file in `folder`, opened; a writer makes it if there is none. Raises OSError."""

    def __init__(self, folder: Path, *, writable: bool = False, boot: bytes | None = None) -> None:
        self._descriptor = os.open(folder / "committed", os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY, 0o644)
        self._boot = boot_id() if boot is None else boot

    def read(self) -> Committed:
        """What it says. A file that is missing its bytes, or whose sum is wrong, says 0 and not current."""
        for _ in range(100):  # a read that meets the writer's overwrite half-way is repeated
            data = os.pread(self._descriptor, _LAYOUT.size, 0)
            if len(data) < _LAYOUT.size:
                break
            records, written, crc = _LAYOUT.unpack(data)
            if zlib.crc32(data[:-4]) == crc:
                return Committed(records=records, current=written == self._boot)
        return Committed(records=0, current=False)

    def write(self, records: int) -> None:
        """Overwrite it in place. Raises OSError."""
        head = records.to_bytes(8, "little") + self._boot
        os.pwrite(self._descriptor, head + zlib.crc32(head).to_bytes(4, "little"), 0)

    def sync(self) -> None:
        """Raises OSError."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """A second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def boot_id() -> bytes:
    """16 bytes that name this boot of the machine; zeros where the system doesn't tell."""
    try:
        return uuid.UUID(_BOOT_ID.read_text().strip()).bytes
    except (OSError, ValueError):
        return bytes(16)
