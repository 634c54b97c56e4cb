"""The key of the hash that replaces people's names: made once for a state folder, and never again.

With another one everybody is somebody else: a vote that is sent again gets another id, and nobody can change their own.
A folder in which nobody has been named yet has none.
"""

from pathlib import Path

from rlhf_online.errors import SecretLost, UndecodableEvent
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Completion, Feedback
from rlhf_online.state import PERSON_SALT, PersonHash, StateDir
from rlhf_online.wire import decode

RECORDS = 4096


def open_person_hash(state: StateDir, log: Path) -> PersonHash:
    """The hash under the folder's salt. Raises SecretLost if the salt is gone from a folder whose log needs it."""
    if not (state.root / PERSON_SALT).exists() and log.is_dir() and _needed_by(log):
        raise SecretLost(
            f"{state.root / PERSON_SALT} is gone, and the log in {log} names people by it: bring it back from a "
            "backup. To go on without it, when everybody counts as a new person and nobody can change an earlier vote, "
            "write 32 random characters there"
        )
    return state.person_hash()


def _needed_by(log: Path) -> bool:
    """Whether the log names anybody; yes, if its beginning is gone and cannot tell."""
    with LocalReader(log) as reader:
        records, position = reader.read({}, RECORDS)
        if records and records[0].offset > 0:
            return True
        while records:
            for record in records:
                try:
                    event = decode(record.payload).event
                except UndecodableEvent:
                    continue
                if isinstance(event, Completion | Feedback) and event.person:
                    return True
            records, position = reader.read(position, RECORDS)
    return False
