"""Votes on an answer that is still being written, and on one that was cut short: they wait for it to be logged."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# (the generated stubs are typed for synchronous channels)

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import grpc
import orjson
import pytest

from rlhf_online.eventlog.base import Record
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Completion, Event
from rlhf_online.feedback.votes import Rating
from rlhf_online.proto.rlhf.v1 import chat_pb2, chat_pb2_grpc, events_pb2
from rlhf_online.training.intake import Intake
from rlhf_online.training.ledger import Ledger
from rlhf_online.wire import decode
from tests.support.chat_service import ASK, Service, running
from tests.support.intakes import new_intake
from tests.support.waiting import eventually

USER = {"user": "ann"}


@asynccontextmanager
async def over_http(service: Service) -> AsyncIterator[str]:
    """A stream whose first token has come; it is cut short at the end of the block, if it has not ended."""
    async with service.session.post(service.url + "/v1/chat/completions", json={**ASK, "stream": True}) as response:
        async for line in response.content:
            if line.startswith(b"data: {") and b"hello" in line:
                yield orjson.loads(line[6:])["id"]
                break


@asynccontextmanager
async def over_grpc(service: Service) -> AsyncIterator[str]:
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        messages = [events_pb2.Message(role="user", content="secret words")]
        request = chat_pb2.StreamCompleteRequest(request=chat_pb2.CompleteRequest(messages=messages))
        call = chat_pb2_grpc.ChatServiceStub(channel).StreamComplete(request)
        yield (await call.read()).completion_id
        call.cancel()


async def vote(service: Service, completion_id: str, *, up: bool) -> str:
    body = {"thumb": {"answer": {"completion_id": completion_id}, "up": up}, **USER}
    status, reply = await service.post("/v1/feedback", body)
    assert status == 200, reply
    return reply["event_id"]


def taken(intake: Intake) -> list[Rating]:
    intake.read()
    return [vote for vote in intake.votes.take()[0] if isinstance(vote, Rating)]


@pytest.mark.parametrize("end", ["whole", "cut short"])
@pytest.mark.parametrize("stream", [over_http, over_grpc])
async def test_a_vote_while_it_streams_is_learned_from_once_the_answer_is_logged(
    tmp_path: Path, stream: Callable[[Service], AbstractAsyncContextManager[str]], end: str
) -> None:
    with LocalLog(tmp_path / "state" / "log") as log, LocalReader(tmp_path / "state" / "log") as reader:
        async with running(tmp_path, log=log) as service:
            intake = new_intake(reader, Ledger(), tmp_path / "answers")
            await service.engine.hold()
            first_token = asyncio.create_task(service.engine.allow(1))
            async with stream(service) as completion_id:
                await first_token
                await vote(service, completion_id, up=True)
                last = await vote(service, completion_id, up=False)
                assert taken(intake) == [] and intake.join.pending == 2
                if end == "whole":
                    await service.engine.release()
                    await eventually(lambda: log.end == 3)
            await eventually(lambda: log.end == 3)
            [learned] = taken(intake)
            assert (learned.event_id, learned.up) == (last, False), "a person's last word"
            after = await vote(service, completion_id, up=True)
            assert [vote.event_id for vote in taken(intake)] == [after], "it is changed as any other"
            [completion] = [e for e in map(event_of, reader.read({}, 9)[0]) if isinstance(e, Completion)]
            assert completion.completion_id == completion_id
            assert completion.answers[0].finish_reason == ("abort" if end == "cut short" else "stop")


def event_of(record: Record) -> Event:
    return decode(record.payload).event
