"""The local log seen as a spool: what a forwarder has shipped of it, and what was refused for good.

    shipped.json         {"spool": identity, "shipped": n}: the first n records have left, or were refused
    refused.jsonl        one line for each record refused for good; the record itself stays in the spool

The position is written after the confirmations that it counts, so it can only be too low: then records are sent twice,
and readers drop the second by its event id.
"""

import json
from pathlib import Path

from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog.base import Record
from rlhf_online.eventlog.tail import PARTITION, LocalReader
from rlhf_online.state import append_durably, write_json

_REFUSED = "refused.jsonl"


class Spool:
    """One forwarder's view of the log in `folder`; only the holder of its writer lock may have one.

    Raises LogUnavailable.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = LocalReader(folder)
        self.shipped = self.saved = self._read()
        self.refused = self._count_refused()

    @property
    def identity(self) -> str:
        return self._reader.identity()

    def waiting(self, limit: int) -> list[Record]:
        """The next records to ship, none if all have left. Raises LogError."""
        return self._reader.read({PARTITION: self.shipped}, limit)[0]

    def backlog(self) -> int:
        """Acknowledged records that have not left. Raises LogUnavailable."""
        return self._reader.end().get(PARTITION, 0) - self.shipped

    def save(self) -> None:
        """Make `shipped` durable. Raises OSError."""
        shipped = self.shipped
        write_json(self._folder / "shipped.json", {"spool": self.identity, "shipped": shipped})
        self.saved = shipped

    def refuse(self, record: Record, reason: str) -> None:
        """Name a record that will never be shipped. Raises LogUnavailable if that can't be written."""
        line = json.dumps({"sequence": record.offset, "reason": reason, "bytes": len(record.payload)})
        try:
            append_durably(self._folder / _REFUSED, line.encode() + b"\n")
        except OSError as error:
            raise LogUnavailable(f"{self._folder / _REFUSED} cannot be written: {error}") from error
        self.refused += 1

    def close(self) -> None:
        self._reader.close()

    def _count_refused(self) -> int:
        try:
            return (self._folder / _REFUSED).read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise LogUnavailable(f"{self._folder / _REFUSED} cannot be read: {error}") from error

    def _read(self) -> int:
        path = self._folder / "shipped.json"
        try:
            values = json.loads(path.read_text())
            return int(values["shipped"]) if values["spool"] == self.identity else 0
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LogUnavailable(
                f"{path} cannot be read ({error}): remove it to ship the whole spool again; readers drop what they had"
            ) from error
