"""What became of every vote that was acknowledged to a client, read from the state folder.

Each figure has a source of its own, so that their sum is a check and not a definition: `accepted` counts the clients'
acknowledgements; dispositions come from the files of the ledger that the newest checkpoint names; pending votes are
those that its intake still holds and those that the log holds after its position, unless the ledger knows them.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, get_args

from rlhf_online.config import LogSettings
from rlhf_online.eventlog import open_source
from rlhf_online.events import Feedback
from rlhf_online.simulation.report import VoteCounts
from rlhf_online.state import StateDir
from rlhf_online.training.ledger import Disposition
from rlhf_online.wire import decode

ENTRY_BYTES, DIGEST_BYTES = 17, 16
READ_RECORDS = 1000


def count_votes(state: StateDir, log: LogSettings, acknowledged: Collection[str]) -> VoteCounts:
    """By the newest checkpoint; without one, every vote is pending. Works while the services run."""
    folder = _newest(state.checkpoints)
    entries: list[tuple[str, bytes]] = []
    position: dict[str, int] = {}
    pending: set[str] = set()
    if folder is not None:
        names = json.loads((folder / "manifest.json").read_text())["ledger"]
        entries = [entry for name in names for entry in _entries(state.checkpoints / "ledger" / name)]
        intake = json.loads((folder / "intake.json").read_text())
        position, pending = intake["position"], _waiting(intake)
    taken = {digest for _, digest in entries}
    pending |= _votes_after(state, log, position)
    pending = {event_id for event_id in pending if _digest(event_id) not in taken}
    ours = {_digest(event_id): event_id for event_id in acknowledged}
    fate = Counter(disposition for disposition, digest in entries if digest in ours)
    times = Counter(digest for disposition, digest in entries if disposition == "trained")
    return VoteCounts(
        accepted=len(ours),
        trained=fate["trained"],
        held_out=fate["held_out"],
        pending=len(pending & set(ours.values())),
        orphaned=fate["orphaned"],
        dead_lettered=fate["dead_lettered"],
        withdrawn=fate["withdrawn"],
        erased=fate["erased"],
        trained_twice=sum(count - 1 for count in times.values()),
        trained_ids=frozenset(ours[digest] for digest in times if digest in ours),
    )


def _newest(checkpoints: Path) -> Path | None:
    """The newest complete checkpoint's folder."""
    numbered = (path.parent for path in checkpoints.glob("*/manifest.json"))
    return max((path for path in numbered if path.name.isdigit()), key=lambda path: int(path.name), default=None)


def _entries(path: Path) -> Iterator[tuple[str, bytes]]:
    """(disposition, digest) of each entry of a ledger file: a byte for the disposition, 16 for the digest."""
    names = get_args(Disposition)
    data = path.read_bytes()
    for start in range(0, len(data), ENTRY_BYTES):
        yield names[data[start]], data[start + 1 : start + ENTRY_BYTES]


def _digest(event_id: str) -> bytes:
    return hashlib.blake2b(event_id.encode(), digest_size=DIGEST_BYTES).digest()


def _waiting(intake: dict[str, Any]) -> set[str]:
    """Event ids of the votes that wait for their answers, or for a cycle."""
    join = intake["join"]
    unanswered = {decode(base64.b64decode(data)).event_id for data in [*join["pending"], *join["pushed_out"]]}
    return unanswered | {vote["event_id"] for vote in intake["votes"]}


def _votes_after(state: StateDir, log: LogSettings, position: dict[str, int]) -> set[str]:
    """Event ids of the votes that the log holds from `position` on."""
    source = open_source(log, state.log)
    try:
        found: set[str] = set()
        while True:
            records, position = source.read(position, READ_RECORDS)
            if not records:
                return found
            envelopes = (decode(record.payload) for record in records)
            found |= {envelope.event_id for envelope in envelopes if isinstance(envelope.event, Feedback)}
    finally:
        source.close()
