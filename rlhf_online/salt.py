"""The key of the hash that replaces people's names: made once for a state folder, and never again.

With another one everybody is somebody else: a vote that is sent again gets another id, so that it may be trained on
twice, and nobody can change their own. So the log's folder holds the fingerprint of the salt that its people are named
by; a folder of before there were fingerprints gets one at its next start. A log that has named nobody yet needs no
particular salt.
"""

import os
from pathlib import Path

from rlhf_online.errors import SecretLost, UndecodableEvent
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.state import FINGERPRINT, PERSON_SALT, VARIABLES, PersonHash, StateDir
from rlhf_online.wire import peek

RECORDS = 4096
ELSE = (
    "bring it back from a backup. To go on without it, when everybody counts as a new person and nobody can change an "
    "earlier vote,"
)


def open_person_hash(state: StateDir, log: Path) -> PersonHash:
    """The hash under the folder's salt. Raises SecretLost if the log names people by another one, or it is gone."""
    salt, fingerprint = state.root / PERSON_SALT, log / FINGERPRINT
    expected = fingerprint.read_text().strip() if fingerprint.is_file() else ""
    given = bool(os.environ.get(VARIABLES[PERSON_SALT], "").strip())
    if not given and not salt.exists() and log.is_dir() and _needed_by(log):
        raise SecretLost(
            f"{salt} is gone, and the log in {log} names people by it: {ELSE} write 32 random characters there"
            + (f" and remove {fingerprint}" if expected else "")
        )
    person_hash = state.person_hash()
    if expected == person_hash.fingerprint:
        return person_hash
    if expected and _needed_by(log):
        raise SecretLost(
            f"{VARIABLES[PERSON_SALT] if given else salt} is another one than that by which the log in {log} names "
            f"people (its fingerprint is {person_hash.fingerprint}, the log's {expected}): {ELSE} remove {fingerprint}"
        )
    person_hash.sign(log)
    return person_hash


def _needed_by(log: Path) -> bool:
    """Whether the log names anybody; yes, if its beginning is gone and cannot tell."""
    with LocalReader(log) as reader:
        records, position = reader.read({}, RECORDS)
        if records and records[0].offset > 0:
            return True
        while records:
            for record in records:
                try:
                    if peek(record.payload).person:
                        return True
                except UndecodableEvent:
                    continue
            records, position = reader.read(position, RECORDS)
    return False
