"""All that is a person's, erased at once: no byte of the state, nor of a backup, tells any more what they said."""

# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# (the generated stubs are typed for synchronous channels)

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from rlhf_online.backup import backup
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Completion, Erasure, Feedback, Shredded
from rlhf_online.keystore.keyring import Keyring
from rlhf_online.keystore.places import FolderKeys
from rlhf_online.keystore.vault import Vault
from rlhf_online.proto.rlhf.v1 import conversations_pb2 as pb
from rlhf_online.proto.rlhf.v1 import conversations_pb2_grpc
from rlhf_online.state import StateDir
from rlhf_online.wire import decode
from tests.support.chat_service import Service, running
from tests.support.content_keys import take_away
from tests.support.planted import forms, holding
from tests.support.waiting import eventually

ASKED, REASON, BETTER, BOBS = "xylophones-asked", "xylophones-because", "xylophones-better", "zeppelins-asked"
SEALED = {"url": "file:"}


@asynccontextmanager
async def service(folder: Path, keystore: dict[str, str] = SEALED) -> AsyncIterator[Service]:
    with LocalLog(folder / "state" / "log") as log:
        async with running(folder, log=log, keystore=keystore) as running_:
            yield running_


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Service]:
    async with service(tmp_path) as running_:
        yield running_


async def talk(kept: Service) -> str:
    """Ann and Bob ask; Ann says why one answer is bad, and what would have been better. Ann's answer."""
    messages = [{"role": "user", "content": f"tell me of {ASKED}"}]
    _, answer = await kept.ask(user="ann", conversation_id="trip", messages=messages)
    ref = {"completion_id": answer["id"], "index": 0}
    for vote in (
        {"thumb": {"answer": ref, "up": False}, "reason": f"for {REASON}"},
        {"correction": {"answer": ref, "text": f"rather {BETTER}"}},
    ):
        status, reply = await kept.post("/v1/feedback", {**vote, "user": "ann"})
        assert status == 200, reply
    await kept.ask(user="bob", messages=[{"role": "user", "content": f"tell me of {BOBS}"}])
    await kept.get("/v1/conversations?user=ann")  # the databases have followed
    await kept.get("/v1/feedback?user=ann")
    return answer["id"]


async def erase(kept: Service, path: str = "me?user=ann", token: str = "") -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with kept.session.delete(f"{kept.url}/v1/people/{path}", headers=headers) as response:
        return response.status, orjson.loads(await response.read())


def planted(*words: str) -> list[bytes]:
    return [form for word in words for form in forms(word)]


def person(kept: Service, name: str = "ann") -> str:
    return kept.state.person_hash()(name)


def keys_of(state: StateDir) -> Keyring:
    return Keyring(Vault(FolderKeys(state.root / "keystore")))


async def test_without_keys_the_search_finds_what_was_planted_in_many_files(tmp_path: Path) -> None:
    """What the tests below do not find could be found."""
    async with service(tmp_path, {}) as kept:
        await talk(kept)
        found = holding(kept.state.root, planted(ASKED, REASON, BETTER))
    for file in ("log/", "conversations/conversations.sqlite", "log/votes.sqlite"):
        assert any(name.startswith(file) for name in found), found


async def test_with_keys_no_byte_of_the_state_says_what_people_said(kept: Service) -> None:
    await talk(kept)
    assert holding(kept.state.root, planted(ASKED, REASON, BETTER, BOBS)) == []
    status, found = await kept.get("/v1/conversations/trip?user=ann")
    assert status == 200, "and who may read it does"
    assert ASKED in found["exchanges"][0]["messages"][0]["content"]
    assert REASON in str(found["exchanges"][0]["votes"]) and BETTER in str(found["exchanges"][0]["votes"])
    assert (await kept.get("/v1/conversations?user=ann"))[1]["conversations"][0]["title"].endswith(ASKED)
    assert len((await kept.get("/v1/feedback?user=ann"))[1]["data"]) == 2


async def test_after_an_erasure_the_key_is_in_no_file_and_nothing_opens_what_was_said(
    kept: Service, tmp_path: Path
) -> None:
    await talk(kept)
    key = keys_of(kept.state).current(person(kept), make=False)
    bobs = keys_of(kept.state).current(person(kept, "bob"), make=False)
    assert key is not None and bobs is not None
    stored = base64.b64encode(key.secret)
    assert len(holding(kept.state.root, [key.secret, stored])) == 1, "the search finds it before"
    copy = tmp_path / "copy"
    backup(kept.state, copy, log=kept.state.log, versions=True)

    status, erased = await erase(kept)
    assert status == 200, erased
    assert (erased["person"], erased["conversations"], erased["shredded"]) == (person(kept), 1, True)
    for folder in (kept.state.root, copy):
        assert holding(folder, [key.secret, stored, *planted(ASKED, REASON, BETTER)]) == []
    assert len(holding(kept.state.root, [base64.b64encode(bobs.secret)])) == 1

    keys = keys_of(kept.state)
    for log in (kept.state.log, copy / "log"):
        with LocalReader(log) as reader:
            events = [decode(record.payload, keys).event for record in reader.read({}, 100)[0]]
        gone = [event for event in events if isinstance(event, Shredded)]
        assert [event.kind for event in gone] == [Completion, Feedback, Feedback]
        [bob] = [event for event in events if isinstance(event, Completion)]
        assert BOBS in bob.messages[0].content


async def test_a_backup_holds_no_key(kept: Service, tmp_path: Path) -> None:
    """Else an erasure would not reach it."""
    await talk(kept)
    backup(kept.state, tmp_path / "copy", log=kept.state.log, versions=True)
    assert (kept.state.root / "keystore").is_dir() and not (tmp_path / "copy" / "keystore").exists()
    assert holding(tmp_path / "copy", planted(ASKED, REASON, BETTER, BOBS)) == []


async def test_who_erased_everything_finds_nothing_and_others_all(kept: Service) -> None:
    answer = await talk(kept)
    await kept.ask(user="ann", conversation_id="food")
    _, erased = await erase(kept)
    assert erased["conversations"] == 2
    assert (await kept.get("/v1/conversations?user=ann"))[1]["conversations"] == []
    assert (await kept.get("/v1/conversations/trip?user=ann"))[0] == 404
    assert (await kept.get("/v1/feedback?user=ann"))[1]["data"] == []
    async with kept.session.get(f"{kept.url}/v1/export?user=ann") as response:
        assert await response.read() == b""
    assert len((await kept.get("/v1/conversations?user=bob"))[1]["conversations"]) == 1
    token = kept.state.operator_token()
    async with kept.session.get(
        f"{kept.url}/v1/completions/{answer}/trace", headers={"Authorization": f"Bearer {token}"}
    ) as response:
        assert response.status in (200, 404) and ASKED not in await response.text()


async def test_the_log_says_it_once_for_all_and_once_for_each_conversation(kept: Service) -> None:
    await talk(kept)
    _, erased = await erase(kept)
    with LocalReader(kept.state.log) as reader:
        records = reader.read({}, 100)[0]
        events = [decode(record.payload, keys_of(kept.state)).event for record in records]
    found = [event for event in events if isinstance(event, Erasure)]
    assert [(event.whole, event.conversation_id, event.person) for event in found] == [
        (True, "", person(kept)),
        (False, "trip", person(kept)),
    ]
    assert erased["position"] == {"local": len(records)}


async def test_who_comes_back_is_somebody_with_a_new_key(kept: Service) -> None:
    await talk(kept)
    await erase(kept)
    assert (await kept.ask(user="ann", conversation_id="again"))[0] == 200
    assert [row["conversation_id"] for row in (await kept.get("/v1/conversations?user=ann"))[1]["conversations"]] == [
        "again"
    ]
    status, erased = await erase(kept)
    assert (status, erased["conversations"]) == (200, 1)


async def test_an_answer_that_is_being_written_meanwhile_is_not_logged(kept: Service) -> None:
    await kept.engine.hold()
    task = asyncio.create_task(kept.ask(user="ann", conversation_id="trip"))
    await eventually(lambda: kept.chat.gateway.active == 1)
    assert (await erase(kept))[0] == 200
    await kept.engine.release()
    status, _ = await task
    assert status == 200
    assert (await kept.get("/v1/conversations?user=ann"))[1]["conversations"] == []
    with LocalReader(kept.state.log) as reader:
        assert not [r for r in reader.read({}, 100)[0] if isinstance(decode(r.payload, None).event, Completion)]


async def test_operators_erase_by_the_hash_and_say_which_versions_saw_it(kept: Service) -> None:
    await talk(kept)
    token = kept.state.operator_token()
    assert (await erase(kept, person(kept)))[0] == 401
    status, refused = await erase(kept, "ann", token)
    assert (status, refused["error"]["param"]) == (400, "person")
    status, erased = await erase(kept, person(kept), token)
    assert (status, erased["versions"], erased["shredded"]) == (200, [], True)
    assert (await kept.get("/v1/conversations?user=ann"))[1]["conversations"] == []


async def test_nobody_cannot_be_erased(kept: Service) -> None:
    status, refused = await erase(kept, "me")
    assert (status, refused["error"]["param"]) == (400, "user")


async def test_over_grpc_it_is_the_same(kept: Service) -> None:
    await talk(kept)
    async with grpc.aio.insecure_channel(kept.grpc) as channel:
        stub = conversations_pb2_grpc.ConversationServiceStub(channel)
        erased = await stub.EraseEverything(pb.EraseEverythingRequest(user="ann"))
    assert (erased.person, erased.conversations, erased.shredded) == (person(kept), 1, True)


async def test_without_a_key_store_the_reply_says_that_the_log_holds_it(tmp_path: Path) -> None:
    async with service(tmp_path, {}) as kept:
        await talk(kept)
        status, erased = await erase(kept)
        assert (status, erased["shredded"]) == (200, False)
        assert (await kept.get("/v1/conversations?user=ann"))[1]["conversations"] == []


async def test_while_the_key_store_is_away_people_who_are_known_go_on_and_new_ones_are_told(
    kept: Service,
) -> None:
    await talk(kept)
    away = take_away(kept.state.root / "keystore")
    status, answer = await kept.ask(user="ann", conversation_id="trip")
    assert status == 200
    ref = {"completion_id": answer["id"], "index": 0}
    vote = {"thumb": {"answer": ref, "up": True}}
    assert (await kept.post("/v1/feedback", {**vote, "user": "ann"}))[0] == 200
    assert (await kept.ask(user="new"))[0] == 200, "people are answered"
    status, refused = await kept.post("/v1/feedback", {**vote, "user": "new"})
    assert status == 503 and "the key store" in refused["error"]["message"], refused
    status, refused = await erase(kept)
    assert status == 503 and refused["error"]["code"] == "keystore_unavailable"
    assert "ask again" in refused["error"]["message"]
    shutil.move(away, kept.state.root / "keystore")
    assert (await kept.post("/v1/feedback", {**vote, "user": "new"}))[0] == 200
    assert (await erase(kept))[0] == 200


async def test_a_log_that_was_written_before_goes_on(tmp_path: Path) -> None:
    async with service(tmp_path, {}) as kept:
        await kept.ask(user="ann", conversation_id="old")
    async with service(tmp_path) as kept:
        await kept.ask(user="ann", conversation_id="new")
        assert {
            row["conversation_id"] for row in (await kept.get("/v1/conversations?user=ann"))[1]["conversations"]
        } == {
            "old",
            "new",
        }
