"""The salt of people's names is made once; where the log needs it and it is gone, the service does not start."""

from pathlib import Path

import pytest

from rlhf_online.errors import SecretLost
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.events import AnswerRef, Envelope, Feedback, Thumb
from rlhf_online.state import StateDir
from rlhf_online.wire import encode
from services.chat.salt import open_person_hash
from tests.support.chat_service import Service

THUMB = {"thumb": {"answer": {"completion_id": "a"}, "up": True}}


def write(folder: Path, *people: str, segment_bytes: int = 1 << 20) -> None:
    """A log with a thumb of each of `people`."""
    with LocalLog(folder, segment_bytes=segment_bytes) as log:
        for number, person in enumerate(people):
            thumb = Thumb(answer=AnswerRef(completion_id="a"), up=True)
            event = Feedback(conversation_id="c", person=person, kind=thumb)
            log.append(encode(Envelope(event_id=str(number), event=event))).result()


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


def test_a_new_folder_gets_a_salt_and_keeps_it(state: StateDir) -> None:
    hashed = open_person_hash(state, state.log)("ann")
    write(state.log, hashed)
    assert open_person_hash(state, state.log)("ann") == hashed


def test_a_log_that_names_nobody_needs_none(state: StateDir) -> None:
    write(state.log, "", "")
    assert open_person_hash(state, state.log)("ann")


def test_a_log_that_names_somebody_needs_the_old_one(state: StateDir) -> None:
    hashed = open_person_hash(state, state.log)("ann")
    write(state.log, "", hashed)
    salt = state.root / "person.salt"
    salt.rename(salt.with_suffix(".gone"))
    with pytest.raises(SecretLost, match=r"person.salt is gone.*backup"):
        open_person_hash(state, state.log)
    assert not salt.exists()
    salt.with_suffix(".gone").rename(salt)
    assert open_person_hash(state, state.log)("ann") == hashed


def test_a_log_whose_beginning_is_gone_cannot_tell(state: StateDir) -> None:
    write(state.log, *[""] * 8, segment_bytes=1)
    min(state.log.glob("*.log")).unlink()
    with pytest.raises(SecretLost):
        open_person_hash(state, state.log)


async def test_it_is_read_once(service: Service) -> None:
    """People stay who they are while the service runs, whatever happens to the file."""
    _, first = await service.post("/v1/feedback", vote := {**THUMB, "user": "ann", "idempotency_key": "k"})
    (service.state.root / "person.salt").unlink()
    assert (await service.post("/v1/feedback", vote))[1]["event_id"] == first["event_id"]
    assert not (service.state.root / "person.salt").exists()
