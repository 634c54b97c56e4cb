"""A person's own conversations: all that was acknowledged, nobody else's, and gone once they are erased."""

# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# (the generated stubs are typed for synchronous channels)

import asyncio
import random
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import orjson
import pytest
from google.protobuf.json_format import ParseDict

from rlhf_online import events as ev
from rlhf_online.eventlog.base import AppendFuture
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.proto.rlhf.v1 import conversations_pb2 as pb
from rlhf_online.proto.rlhf.v1 import conversations_pb2_grpc
from rlhf_online.proto.rlhf.v1.feedback_pb2 import FeedbackItem
from rlhf_online.training.ledger import Ledger
from rlhf_online.wire import encode
from services.chat.conversations import store as module
from services.chat.conversations.rows import exchange_row
from services.chat.conversations.store import NAME, ConversationStore
from tests.services.chat.transport.test_transports import a_message
from tests.support.chat_process import FILE_LOG, ChatProcess
from tests.support.chat_service import Service, running
from tests.support.fake_vllm import fake_vllm
from tests.support.intakes import new_intake
from tests.support.logged import completion, erasure, feedback, ref, thumb
from tests.support.waiting import eventually


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Service]:
    """A service with a log on disk."""
    with LocalLog(tmp_path / "state" / "log") as log:
        async with running(tmp_path, log=log) as service:
            yield service


async def listed(service: Service, user: str = "ann") -> list[dict[str, Any]]:
    status, reply = await service.get(f"/v1/conversations?user={user}")
    assert status == 200, reply
    return reply["conversations"]


async def erase(service: Service, conversation: str, user: str = "ann") -> tuple[int, dict[str, Any]]:
    async with service.session.delete(f"{service.url}/v1/conversations/{conversation}?user={user}") as response:
        return response.status, orjson.loads(await response.read())


async def export(service: Service, user: str = "ann") -> list[dict[str, Any]]:
    async with service.session.get(f"{service.url}/v1/export?user={user}") as response:
        assert response.status == 200
        return [orjson.loads(line) for line in (await response.read()).splitlines()]


async def test_what_was_asked_is_listed_and_read(kept: Service) -> None:
    _, first = await kept.ask(user="ann", conversation_id="trip/1")
    _, second = await kept.ask(user="ann", conversation_id="trip/1", n=2)
    await kept.ask(user="ann", conversation_id="food")
    await kept.ask(user="bob", conversation_id="trip/1")
    await kept.ask(conversation_id="trip/1")
    assert [(row["conversation_id"], row["exchanges"], row["title"]) for row in await listed(kept)] == [
        ("food", 1, "secret words"),
        ("trip/1", 2, "secret words"),
    ]
    vote = {"thumb": {"answer": {"completion_id": second["id"], "index": 1}, "up": True}, "user": "ann"}
    assert (await kept.post("/v1/feedback", vote))[0] == 200
    status, found = await kept.get("/v1/conversations/trip/1?user=ann")
    assert status == 200 and not found["more"]
    assert [exchange["completion_id"] for exchange in found["exchanges"]] == [first["id"], second["id"]]
    assert found["exchanges"][0]["messages"] == [{"role": "user", "content": "secret words"}]
    answers = found["exchanges"][1]["answers"]
    assert [(answer["index"], answer["text"], answer["versions"]) for answer in answers] == [
        (0, "hello there", ["policy-000000"]),
        (1, "hello there", ["policy-000000"]),
    ]
    assert [said["thumb"] for said in found["exchanges"][1]["votes"]] == [vote["thumb"]]


@pytest.mark.parametrize("user", ["bob", "x"])
async def test_another_persons_is_as_none(kept: Service, user: str) -> None:
    await kept.ask(user="ann", conversation_id="c")
    status, reply = await kept.get(f"/v1/conversations/c?user={user}")
    assert (status, reply["error"]["code"]) == (404, "conversation_not_found")
    assert (await erase(kept, "c", user))[0] == 404
    assert await listed(kept, user) == await export(kept, user) == []
    assert len(await listed(kept)) == 1


async def test_nobodys_are_kept_for_nobody(kept: Service) -> None:
    await kept.ask(conversation_id="c")
    for path in ("/v1/conversations", "/v1/conversations/c", "/v1/export"):
        status, reply = await kept.get(path)
        assert (status, reply["error"]["param"]) == (400, "user")


async def test_long_lists_come_in_pages(kept: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.chat.conversations.service.PAGE", 2)
    for number in range(5):
        await kept.ask(user="ann", conversation_id=f"c{number // 2}")
    _, first = await kept.get("/v1/conversations?user=ann")
    assert ([row["conversation_id"] for row in first["conversations"]], first["more"]) == (["c2", "c1"], True)
    _, rest = await kept.get("/v1/conversations?user=ann&after=c1")
    assert ([row["conversation_id"] for row in rest["conversations"]], rest["more"]) == (["c0"], False)
    assert len(await export(kept)) == 5
    last = (await kept.get("/v1/conversations/c0?user=ann"))[1]["exchanges"][-1]["completion_id"]
    assert (await kept.get(f"/v1/conversations/c0?user=ann&after={last}"))[1]["exchanges"] == []
    for stranger in ("c0?user=bob", "none?user=ann"):  # no page of what is not there, the first or another
        assert (await kept.get(f"/v1/conversations/{stranger}&after={last}"))[0] == 404


async def test_export_is_ones_own_exchanges_and_votes(kept: Service) -> None:
    _, hers = await kept.ask(user="ann", conversation_id="c")
    _, his = await kept.ask(user="bob", conversation_id="c")
    for asked, user in ((hers, "ann"), (his, "ann"), (hers, "bob")):
        correction = {"answer": {"completion_id": asked["id"]}, "text": f"{user}'s words"}
        assert (await kept.post("/v1/feedback", {"correction": correction, "user": user}))[0] == 200
    exported = await export(kept)
    assert [item["object"] for item in exported] == ["exchange", "vote", "vote"]
    assert exported[0]["completion_id"] == hers["id"]
    assert {item["correction"]["text"] for item in exported[1:]} == {"ann's words"}


async def test_an_exported_vote_says_all_that_was_said_with_it(kept: Service) -> None:
    _, asked = await kept.ask(user="ann")
    said = {
        "thumb": {"answer": {"completion_id": asked["id"], "index": 0}, "up": False},
        "reasons": ["too_long", "unclear"],
        "reason": "in my words",
        "objective": "helpful",
        "source": "test",
        "response_ms": 7,
        "shown": [{"completion_id": asked["id"], "index": 0}],
        "conversation_id": asked["rlhf"]["conversation_id"],
    }
    assert (await kept.post("/v1/feedback", said | {"user": "ann"}))[0] == 200
    [vote] = [item for item in await export(kept) if item["object"] == "vote"]
    assert said.items() <= vote.items()


async def test_what_is_erased_is_gone_and_what_is_asked_then_is_new(kept: Service) -> None:
    _, asked = await kept.ask(user="ann", conversation_id="c")
    vote = {"correction": {"answer": {"completion_id": asked["id"]}, "text": "better"}, "user": "ann"}
    await kept.post("/v1/feedback", vote)
    status, reply = await erase(kept, "c")
    assert (status, reply["position"]) == (200, {"local": 3})
    assert (await kept.get("/v1/conversations/c?user=ann"))[0] == 404
    await kept.post("/v1/feedback", vote)
    assert await listed(kept) == await export(kept) == []
    assert (await erase(kept, "c"))[0] == 404
    await asyncio.sleep(0.002)  # the clock of the events ticks in milliseconds
    _, again = await kept.ask(user="ann", conversation_id="c")
    assert [item["completion_id"] for item in await export(kept)] == [again["id"]]


async def test_an_answer_that_is_being_written_is_erased_with_the_others(kept: Service) -> None:
    await kept.ask(user="ann", conversation_id="c")
    await kept.engine.hold()
    asking = asyncio.create_task(kept.ask(user="ann", conversation_id="c"))
    await eventually(lambda: kept.chat.gateway.active == 1)
    assert (await erase(kept, "c"))[0] == 200
    await kept.engine.release()
    assert (await asking)[0] == 200
    assert await export(kept) == []


async def test_who_wrote_a_comparison_is_not_read_there_before_the_vote(kept: Service) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "user": "ann", "conversation_id": "c"}
    _, comparison = await kept.post("/v1/comparisons", body)
    first, second = (answer["answer"] for answer in comparison["answers"])

    async def told() -> set[str]:
        _, found = await kept.get("/v1/conversations/c?user=ann")
        exchanges = [*found["exchanges"], *(item for item in await export(kept) if item["object"] == "exchange")]
        return {version for one in exchanges for answer in one["answers"] for version in answer["versions"]}

    assert await told() == set()
    await kept.post("/v1/feedback", {"thumb": {"answer": first, "up": True}, "user": "ann"})
    await kept.post("/v1/feedback", {"pairwise": {"chosen": first, "rejected": second}, "user": "bob"})
    assert await told() == set()
    await kept.post("/v1/feedback", {"pairwise": {"chosen": first, "rejected": second}, "user": "ann"})
    assert await told() == {"policy-000000"}


def as_item(vote: dict[str, Any]) -> dict[str, Any]:
    """A vote of HTTP's as gRPC has it."""
    said = {name: value for name, value in vote.items() if name not in ("event_id", "object")}
    if "ranking" in said:
        said["ranking"] = {"tiers": [{"answers": tier} for tier in said["ranking"]["tiers"]]}
    return {"event_id": vote["event_id"], "feedback": said}


def as_exchange(exchange: dict[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in exchange.items() if name not in ("object", "conversation_id")}
    said["messages"] = [a_message(**message) for message in exchange["messages"]]
    return {**said, "votes": [as_item(vote) for vote in exchange.get("votes", ())]}


async def test_grpc_tells_and_erases_the_same(kept: Service) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "secret"}]}]
    _, asked = await kept.ask(user="ann", conversation_id="c", n=2, messages=parts)
    await kept.ask(user="ann", conversation_id="d")
    first, second = ({"completion_id": asked["id"], "index": index} for index in range(2))
    for vote in (
        {"ranking": {"tiers": [[second], [first]]}, "reasons": ["unclear"], "response_ms": 5},
        {"pairwise": {"chosen": first, "rejected": second, "tie": True}},
        {"correction": {"answer": first, "text": "better"}},
    ):
        assert (await kept.post("/v1/feedback", {**vote, "user": "ann"}))[0] == 200
    _, listed = await kept.get("/v1/conversations?user=ann")
    _, read = await kept.get("/v1/conversations/c?user=ann")
    exported = await export(kept)
    async with grpc.aio.insecure_channel(kept.grpc) as channel:
        stub = conversations_pb2_grpc.ConversationServiceStub(channel)
        found = await stub.ListConversations(pb.ListConversationsRequest(user="ann"))
        assert found == ParseDict(listed, pb.ListConversationsResponse())
        one = await stub.GetConversation(pb.GetConversationRequest(user="ann", conversation_id="c"))
        read["exchanges"] = [as_exchange(exchange) for exchange in read["exchanges"]]
        assert one == ParseDict(read, pb.GetConversationResponse())
        assert len(one.exchanges[0].votes) == 3
        items = [item async for item in stub.ExportConversations(pb.ExportConversationsRequest(user="ann"))]
        assert items == [
            pb.ExportConversationsResponse(vote=ParseDict(as_item(item), FeedbackItem()))
            if item["object"] == "vote"
            else pb.ExportConversationsResponse(
                conversation_id=item["conversation_id"], exchange=ParseDict(as_exchange(item), pb.Exchange())
            )
            for item in exported
        ]
        assert [item.WhichOneof("item") for item in items] == ["exchange"] * 2 + ["vote"] * 3
        gone = await stub.EraseConversation(pb.EraseConversationRequest(user="ann", conversation_id="c"))
        assert (gone.conversation_id, dict(gone.position)) == ("c", {"local": 6})
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            [item async for item in stub.ExportConversations(pb.ExportConversationsRequest())]
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert [row["conversation_id"] for row in (await kept.get("/v1/conversations?user=ann"))[1]["conversations"]] == [
        "d"
    ]


async def test_another_sites_page_erases_nothing(kept: Service) -> None:
    await kept.ask(user="ann", conversation_id="c")
    headers = {"Origin": "http://elsewhere.example"}
    async with kept.session.delete(f"{kept.url}/v1/conversations/c?user=ann", headers=headers) as response:
        assert response.status == 403
    assert len(await listed(kept)) == 1


async def test_a_kill_after_the_erasure_was_acknowledged_brings_nothing_back(tmp_path: Path) -> None:
    """Neither for the person, nor for the trainer, which has not read it yet."""
    async with fake_vllm(tmp_path) as engine, aiohttp.ClientSession() as session:
        chat = ChatProcess(tmp_path, engine, session, FILE_LOG)
        await chat.start()
        try:
            asked = {"messages": [{"role": "user", "content": "hi"}], "user": "ann", "conversation_id": "c"}
            async with session.post(chat.url + "/v1/chat/completions", json=asked) as response:
                completion_id = orjson.loads(await response.read())["id"]
            await chat.vote(completion_id)
            async with session.delete(chat.url + "/v1/conversations/c?user=ann") as response:
                assert response.status == 200
            await chat.kill()
            await chat.start()
            for path in ("/v1/conversations/c", "/v1/conversations", "/v1/export"):
                async with session.get(f"{chat.url}{path}?user=ann") as response:
                    assert completion_id not in await response.text()
        finally:
            await chat.kill()
    ledger = Ledger()
    with LocalReader(tmp_path / "state" / "log") as log:
        intake = new_intake(log, ledger, tmp_path / "answers")
        intake.read()
    assert not any(intake.votes.take())
    assert ledger.counts()["erased"] == 1
    assert intake.policy_inputs.prompts == []


# The store by itself


class Kept:
    """A log, and stores that follow it, one after another."""

    def __init__(self, folder: Path, segment_bytes: int = 400) -> None:
        self.folder = folder
        self.log = LocalLog(folder / "log", segment_bytes=segment_bytes)

    def append(self, envelope: ev.Envelope) -> AppendFuture:
        return self.log.append(encode(envelope))

    def write(self, *envelopes: ev.Envelope) -> None:
        for envelope in envelopes:
            self.append(envelope).result(30)

    def open(self, **kept: Any) -> ConversationStore:
        return ConversationStore(self.folder / "conversations", self.folder / "log", **kept)

    def found(self, store: ConversationStore, conversation: str = "talk a") -> list[str]:
        store.catch_up()
        return [one["completion_id"] for one in store.exchanges("asker", conversation, "", 100)]


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    kept.log.close()


def test_others_of_the_machine_read_nothing(beside: Kept) -> None:
    beside.write(completion("a"))
    store = beside.open()
    assert beside.found(store) == ["a"]
    folder = beside.folder / "conversations"
    assert folder.stat().st_mode & 0o077 == 0
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    store.close()


EARLIER = """
CREATE TABLE IF NOT EXISTS place (only_row INTEGER PRIMARY KEY CHECK (only_row = 0), log TEXT, position INTEGER);
CREATE TABLE IF NOT EXISTS exchange (
    completion_id TEXT PRIMARY KEY, person TEXT, conversation_id TEXT, started_ms INTEGER, finished_ms INTEGER,
    comparison_id TEXT, title TEXT, said BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS exchange_of ON exchange (person, conversation_id, started_ms);
CREATE TABLE IF NOT EXISTS vote (
    event_id TEXT PRIMARY KEY, person TEXT, completion_id TEXT, comparison_id TEXT, compares INTEGER,
    created_ms INTEGER, said BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS vote_of ON vote (person, completion_id);
CREATE INDEX IF NOT EXISTS vote_on ON vote (comparison_id) WHERE comparison_id != '';
CREATE TABLE IF NOT EXISTS erased (
    person TEXT, conversation_id TEXT, erased_ms INTEGER, PRIMARY KEY (person, conversation_id)
) WITHOUT ROWID;
"""
"""As the first release that kept conversations made it (commit 371b3a3)."""


def test_a_database_of_an_earlier_release_goes_on(beside: Kept) -> None:
    """With what the log no longer holds."""
    beside.write(completion("a", conversation="talk a"))
    (beside.folder / "conversations").mkdir()
    with closing(sqlite3.connect(beside.folder / "conversations" / NAME)) as database, database:
        database.executescript(EARLIER)
        kept = completion("long ago", conversation="talk a", at_ms=900).event
        assert isinstance(kept, ev.Completion)
        database.execute("INSERT INTO exchange VALUES (?, ?, ?, ?, ?, ?, ?, ?)", exchange_row(kept))
        with LocalReader(beside.folder / "log") as log:
            database.execute("INSERT INTO place VALUES (0, ?, 1)", (log.identity(),))
    beside.write(completion("b", conversation="talk a", at_ms=2_000))
    store = beside.open()
    assert beside.found(store) == ["long ago", "b"]
    store.close()


def test_what_is_too_old_goes(beside: Kept) -> None:
    now = ev.now_ms()
    beside.write(completion("old", conversation="talk a", at_ms=now - 3 * module.DAY_MS))
    beside.write(completion("new", conversation="talk a", at_ms=now), thumb("old", at_ms=now - 3 * module.DAY_MS))
    store = beside.open(keep_days=2.0)
    assert beside.found(store) == ["old", "new"]
    store.tidy()
    assert beside.found(store) == ["new"]
    assert list(store.votes("rater")) == []
    store.close()


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Kept]:
    """A log with room for many events."""
    kept = Kept(tmp_path, segment_bytes=1 << 20)
    yield kept
    kept.log.close()


def test_what_is_too_much_goes_the_oldest_first(many: Kept) -> None:
    """Exchanges and votes, and what is left of erased ones; the room that they leave is used again."""
    bound = 512 * 1024
    store = many.open(keep_gib=bound / 2**30)
    sizes = []
    for batch in range(4):
        for number in range(200):
            name, at_ms = f"{batch}-{number:03}", 1_000 * batch + number
            many.append(completion(name, conversation="talk a", at_ms=at_ms))
            many.append(feedback(ev.Correction(answer=ref(name), text="x" * 2_000), at_ms=at_ms))
        many.append(erasure("talk e", at_ms=1_000 * batch))
        many.write(completion(f"e{batch}", conversation="talk e", at_ms=1_000 * batch - 1))
        store.catch_up()
        store.tidy()
        [(used,)] = store.rows("SELECT SUM(pgsize) FROM dbstat")
        assert used <= bound
        sizes.append((many.folder / "conversations" / NAME).stat().st_size)
    assert sizes[-1] < 1.1 * sizes[1]
    found = many.found(store)
    assert found == [f"3-{number:03}" for number in range(200)][-len(found) :]
    assert 50 < len(found) < 200
    assert len(list(store.votes("rater"))) == len(found)
    assert store.rows("SELECT COUNT(*) FROM erased") == [(0,)]
    store.close()


def test_nothing_of_many_erased_conversations_stays_in_the_file(many: Kept) -> None:
    """SQLite overwrites what is deleted, and leaves copies of rows that it moved before."""
    chance = random.Random(1)
    store = many.open()
    names: set[str] = set()
    erased: set[str] = set()
    for _ in range(12):
        for _ in range(200):
            name = f"{chance.getrandbits(64):016x}"
            names.add(name)
            text = f"<{name}>" + "x" * chance.choice((10, 100, 400, 1_500, 6_000))
            asked = completion(name, conversation=f"talk {name}").event
            assert isinstance(asked, ev.Completion)
            asked = replace(asked, messages=(ev.Message(role="user", content=text),))
            many.append(ev.Envelope(event_id=name, event=asked))
        for name in chance.sample(sorted(names - erased), 80):
            erased.add(name)
            many.append(erasure(f"talk {name}"))
        many.write(completion("last"))
        store.catch_up(30)
    store.tidy()
    data = b"".join(path.read_bytes() for path in (many.folder / "conversations").iterdir())
    assert {found.decode() for found in re.findall(rb"<(\w{16})>", data)} == names - erased
    store.close()


@pytest.mark.parametrize("first", ["the erasure", "the answer"])
def test_nothing_of_an_erased_conversation_stays_in_the_file(beside: Kept, first: str) -> None:
    answer, erased = completion("a"), erasure("talk a")
    assert isinstance(answer.event, ev.Completion)
    said = feedback(ev.Correction(answer=ref("a"), text="better words"))
    beside.write(*([erased, answer] if first == "the erasure" else [answer, said, erased]), said)
    store = beside.open()
    assert beside.found(store) == []
    assert list(store.votes("rater")) == []
    store.close()
    files = [path.read_bytes() for path in (beside.folder / "conversations").iterdir()]
    assert not any(word in data for data in files for word in (b"hello", b"better words", b"talk a\x00"))
