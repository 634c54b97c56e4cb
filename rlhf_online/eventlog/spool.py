"""The local log seen as a spool: what a forwarder has shipped of it, and what was refused for good.

    shipped.json         {"spool": identity, "shipped": n}: the first n records have left, or were refused
    refused.jsonl        the records refused for good, or found damaged (`dead_letters`)

The position is written after the confirmations that it counts, so it can only be too low: then records are sent twice,
and readers drop the second by spool and number.
"""

import json
from pathlib import Path

from rlhf_online.durable import write_json
from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog import dead_letters
from rlhf_online.eventlog.base import PARTITION, DeadLetter, Record
from rlhf_online.eventlog.tail import LocalReader

_REFUSED = "refused.jsonl"


class Spool:
    """One forwarder's view of the log in `folder`; only the holder of its writer lock may have one.

    Raises LogUnavailable.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = LocalReader(folder)
        self.shipped = self.saved = self._read()
        self.refused = dead_letters.count(folder / _REFUSED)

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

    def refuse(self, record: Record, event_id: str, reason: str) -> None:
        """Make a record that will never be shipped a dead letter. Raises LogUnavailable."""
        dead_letter = DeadLetter(
            partition=PARTITION, offset=record.offset, event_id=event_id, reason=reason, payload=record.payload
        )
        dead_letters.append(self._folder / _REFUSED, [dead_letter])
        self.refused += 1

    def close(self) -> None:
        self._reader.close()

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
