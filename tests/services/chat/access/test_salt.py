"""The salt of people's names is made once; where the log needs it and it is gone, the service does not start."""

from pathlib import Path

import pytest

from rlhf_online.errors import SecretLost
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.events import AnswerRef, Envelope, Feedback, Thumb
from rlhf_online.salt import open_person_hash
from rlhf_online.state import FINGERPRINT, PersonHash, StateDir
from rlhf_online.wire import encode
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


def test_the_environments_salt_is_that_of_the_log_or_refused(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chat services without a folder in common name people alike, and none takes another's by mistake."""
    monkeypatch.setenv("RLHF_PERSON_SALT", "the salt of the installation")
    write(state.log, hashed := open_person_hash(state, state.log)("ann"))
    assert open_person_hash(StateDir(state.root.with_name("another")), state.log.with_name("b"))("ann") == hashed
    assert not (state.root / "person.salt").exists()
    monkeypatch.setenv("RLHF_PERSON_SALT", "the salt of another installation")
    with pytest.raises(SecretLost, match="RLHF_PERSON_SALT is another one than that by which the log in"):
        open_person_hash(state, state.log)


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


@pytest.mark.parametrize("of_before_fingerprints", [False, True])
def test_another_salt_than_the_logs_is_refused_and_both_are_told_apart(
    state: StateDir, of_before_fingerprints: bool
) -> None:
    hashed = open_person_hash(state, state.log)("ann")
    write(state.log, hashed)
    fingerprint, salt = state.log / FINGERPRINT, state.root / "person.salt"
    if of_before_fingerprints:
        fingerprint.unlink()
        open_person_hash(state, state.log)
    before = salt.read_text()
    salt.write_text("another salt of thirty characters")
    new = state.person_hash().fingerprint
    with pytest.raises(SecretLost, match=rf"is another one .*is {new}, the log's {fingerprint.read_text()}.*backup"):
        open_person_hash(state, state.log)
    salt.write_text(before)
    assert open_person_hash(state, state.log)("ann") == hashed
    salt.write_text("another salt of thirty characters")
    fingerprint.unlink()
    assert open_person_hash(state, state.log)("ann") != hashed, "that is how one goes on without the old one"
    assert open_person_hash(state, state.log)("ann") != hashed


def test_a_log_that_names_nobody_takes_any_salt(state: StateDir) -> None:
    open_person_hash(state, state.log)
    write(state.log, "")
    (state.root / "person.salt").unlink()
    assert open_person_hash(state, state.log)("ann") == open_person_hash(state, state.log)("ann")


def test_a_fingerprint_tells_salts_apart_and_nothing_else() -> None:
    one, other = PersonHash(b"a salt of some time ago"), PersonHash(b"a salt of another time")
    assert one.fingerprint == PersonHash(b"a salt of some time ago").fingerprint != other.fingerprint
    assert len(one.fingerprint) == 16 and one.fingerprint not in one("ann")


async def test_it_is_read_once(service: Service) -> None:
    """People stay who they are while the service runs, whatever happens to the file."""
    _, first = await service.post("/v1/feedback", vote := {**THUMB, "user": "ann", "idempotency_key": "k"})
    (service.state.root / "person.salt").unlink()
    assert (await service.post("/v1/feedback", vote))[1]["event_id"] == first["event_id"]
    assert not (service.state.root / "person.salt").exists()


@pytest.mark.parametrize("name", ["person.salt", "operator.token"])
async def test_what_happens_to_a_secret_is_told_while_the_service_goes_on(service: Service, name: str) -> None:
    async def told() -> str:
        return (await service.get("/readyz"))[1]["secrets"]

    path = service.state.root / name
    held = path.read_text()
    assert (await told(), await service.metric("rlhf_chat_secrets_intact")) == ("ok", 1)
    for content, happened in (("", "is empty"), ("somebody else's secret", "was changed")):
        path.write_text(content)
        assert await told() == (
            f"{path} {happened}: bring it back from a backup; the service works with what it read at its start"
        )
    path.unlink()
    assert f"{name} is gone, or cannot be read" in await told()
    assert await service.metric("rlhf_chat_secrets_intact") == 0
    status, ready = await service.get("/readyz")
    assert (status, ready["ready"]) == (200, True)
    path.write_text(held)
    assert await told() == "ok"
