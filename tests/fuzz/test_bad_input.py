"""Bad input of every kind that people send: a 4xx in OpenAI's form that says what is wrong where; never a 500, and
nothing is lost.

Each test asks every operation that it can concern, by the table, of a service in a process of its own. In the end that
must have logged what it acknowledged, and have met no error.
"""

import asyncio
import io
import itertools
import json
import re
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from services.chat.api.operation import Operation
from services.chat.api.operations import OPERATIONS
from tests.fuzz.known import Known
from tests.fuzz.people import Credential, credentials
from tests.fuzz.raw_cases import CALL, Frame
from tests.fuzz.run import not_said
from tests.support import api_keys
from tests.support.chat_process import ChatProcess, chat_process
from tests.support.http2 import PREFACE

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANN, BOB = "ann", "bob"
ASK = {"messages": [{"role": "user", "content": "hello"}]}
UNKNOWN = "00000000-0000-4000-8000-000000000000"
RIGHT: dict[str, dict[str, Any]] = {
    "complete": ASK,
    "complete_text": {"prompt": "once"},
    "compare": ASK,
    "feedback": {"thumb": {"answer": {"completion_id": "a"}, "up": True}},
    "edit_feedback": {"thumb": {"answer": {"completion_id": "a"}, "up": True}},
    "sample": {"prompts": [[1, 2]]},
}
"""Bodies without which nothing else of a body is looked at."""
BODIES = [operation for operation in OPERATIONS if operation.body]
each_body = pytest.mark.parametrize("operation", BODIES, ids=lambda operation: operation.name)


@dataclass
class Asked:
    """The service, and who may ask it what."""

    process: ChatProcess
    who: Mapping[str, Credential]
    known: Known = field(default_factory=Known)
    event: str = UNKNOWN
    """A vote of hers who asks where nobody is named."""

    async def ask(
        self, operation: Operation, body: Any = None, who: str = "", **path: str
    ) -> tuple[int, dict[str, Any]]:
        """Status and body. Whoever is not named is one who may."""
        caller = self.who[who] if who else next(one for one in self.who.values() if one.refusal(operation) is None)
        target = re.sub(
            r"{(\w+)(:path)?}",
            lambda part: quote({"event_id": self.event, **path}.get(part[1], UNKNOWN), safe=""),
            operation.path,
        )
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        data = None if body is None else io.BytesIO(sent)
        url, headers = self.process.url + target, dict(caller.headers())
        async with self.process.session.request(operation.method, url, data=data, headers=headers) as response:
            text = await response.read()
            assert response.status < 500, (operation.name, response.status, text)
            if response.status >= 400:
                assert json.loads(text)["error"]["message"], (operation.name, text)
            plain = response.content_type != "application/json"
            return response.status, {"text": text} if plain else json.loads(text)

    async def refused(self, operation: Operation, body: Any = None, **more: str) -> dict[str, Any]:
        """The error, which must be the client's."""
        status, said = await self.ask(operation, body, **more)
        assert status >= 400, (operation.name, body if len(str(body)) < 500 else "", said)
        return {"status": status, **said["error"]}

    async def chat(self, who: str, **fields: Any) -> dict[str, Any]:
        status, reply = await self.ask(named_operation("complete"), {**ASK, **fields}, who)
        assert status == 200, reply
        self.known.answered([reply["id"]], reply["rlhf"]["conversation_id"], who, logged=reply["rlhf"]["logged"])
        return reply

    async def vote(self, who: str, completion_id: str, **fields: Any) -> str:
        body = {"thumb": {"answer": {"completion_id": completion_id}, "up": True}, **fields}
        status, reply = await self.ask(named_operation("feedback"), body, who)
        assert status == 200, reply
        self.known.voted(reply["event_id"], who)
        return reply["event_id"]


def named_operation(name: str) -> Operation:
    return next(operation for operation in OPERATIONS if operation.name == name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asked]:
    folder: Path = tmp_path_factory.mktemp("bad input")
    (folder / "state").mkdir(mode=0o700)
    api_keys.write(folder / "state")
    async with chat_process(folder) as process:
        asked = Asked(process, {one.name: one for one in credentials(process.state.operator_token())})
        asked.event = await asked.vote(ANN, "an answer")
        yield asked
        process.signal(signal.SIGTERM)
        assert await process.ended(30) == 0
        assert not asked.known.lost(process.logged())
        assert not not_said(process)


# Bodies


NO_JSON = {
    "nothing": b"",
    "half": b'{"user": ',
    "no UTF-8": b'{"user": "\xff"}',
    "UTF-16": '{"user": "ann"}'.encode("utf-16"),
    "a lone surrogate": b'{"user": "\\ud800"}',
    "a lone surrogate in bytes": b'{"user": "\xed\xa0\x80"}',
    "not a number": b'{"user": NaN}',
    "beyond a number": b'{"user": 1e999}',
    "deep": b"[" * 100_000,
    "deep objects": b'{"user":' * 100_000,
    "deep and whole": b'{"user":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "two": b"{}{}",
    "an array": b"[]",
}


@each_body
@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
async def test_a_body_that_is_no_json(service: Asked, operation: Operation, body: bytes) -> None:
    assert operation.body is not None
    if not body and not operation.body.required:
        pytest.skip("it needs no body")
    error = await service.refused(operation, body)
    assert (error["status"], error["code"]) == (400, "invalid_json") or (error["param"] or "").startswith("user")


async def test_ten_megabytes(service: Asked) -> None:
    body = b'{"user": "' + b"a" * (10 << 20) + b'"}'
    for operation in (*BODIES, named_operation("feedback_batch")):
        if operation.name == "feedback_batch":  # refused line by line
            _, said = await service.ask(operation, body)
            error = {"status": 413, **said["results"][0]["error"]}
        else:
            error = await service.refused(operation, body)
        if operation.name == "sample":  # the trainer's, which are large
            assert error["code"] == "unknown_parameter"
        else:
            assert (error["status"], error["code"]) == (413, "body_too_large"), operation.name
            assert "larger than 1048576 bytes" in error["message"]


KINDS: tuple[Any, ...] = (7.5, -1, "zinc", True, [[]], [7], {"zinc": {}})


@each_body
async def test_values_of_every_type_in_every_field(service: Asked, operation: Operation) -> None:
    """What is not taken names the field, what was expected, and what came."""
    assert operation.body is not None
    refused = 0
    for name, value in itertools.product(operation.body.model_fields, KINDS):
        status, said = await service.ask(operation, {**RIGHT.get(operation.name, {}), name: value})
        if status == 400:
            error = said["error"]
            refused += 1
            about = error["param"] or error["message"]
            assert name in about or error["code"] != "invalid_type", (name, value, error)
            if error["code"] == "invalid_type":
                assert "expected " in error["message"] and ", got " in error["message"], error
            assert "zinc" not in error["message"] or error["code"] == "unknown_parameter", "a value is repeated"
    assert refused > len(operation.body.model_fields)


async def test_ten_thousand_fields(service: Asked) -> None:
    for operation in BODIES:
        error = await service.refused(operation, {f"field {number}": number for number in range(10_000)})
        assert (error["code"], error["param"]) == ("unknown_parameter", "field 0")


async def test_roles_in_any_order(service: Asked) -> None:
    """Whatever the order, it is answered or said which message is wrong."""
    roles = ("system", "developer", "user", "assistant", "tool", "narrator", "", None, 7)
    for operation in (named_operation("complete"), named_operation("compare")):
        for order in itertools.product(roles, repeat=2):
            messages = [{"role": role, "content": "hello"} for role in order]
            status, said = await service.ask(operation, {"messages": messages})
            assert status == 200 or said["error"]["param"].startswith("messages["), (order, said)
            known = all(role in ("system", "developer", "user", "assistant") for role in order)
            assert not known or status == 200, (order, said)


@pytest.mark.parametrize("model", ["policy-999999", "gpt-4", "../policy-000000", "é\x00", "m" * 500])
async def test_a_model_or_version_that_nobody_knows(service: Asked, model: str) -> None:
    for name in ("complete", "complete_text"):
        error = await service.refused(named_operation(name), {**RIGHT[name], "model": model})
        assert (error["status"], error["code"], error["param"]) == (404, "model_not_found", "model")
    error = await service.refused(named_operation("compare"), {**ASK, "versions": [model, "base"]})
    assert error["status"] == 404 and error["param"].startswith("versions")
    if "/" not in model and "\x00" not in model:
        assert (await service.refused(named_operation("model"), model=model))["status"] == 404
        assert (await service.refused(named_operation("promote"), version=model))["status"] == 404


# Votes


async def test_feedback_on_nothing(service: Asked) -> None:
    """A vote may come before its answer, so one on an unknown answer waits; of an unknown vote nothing can be said."""
    event = await service.vote(ANN, "an answer that never comes")
    status, found = await service.ask(named_operation("feedback_status"), who=ANN, event_id=event)
    assert (status, found["event_id"]) == (200, event)
    for name in ("feedback_status", "withdraw_feedback", "edit_feedback"):
        for event_id in (UNKNOWN, "no uuid", "a" * 300):
            body = RIGHT["feedback"] if name == "edit_feedback" else None
            error = await service.refused(named_operation(name), body, who=ANN, event_id=event_id)
            assert error["status"] == 404, (name, event_id, error)


async def test_a_ranking_with_duplicate_or_unknown_ids(service: Asked) -> None:
    one = {"completion_id": (await service.chat(ANN, n=2))["id"]}
    two = {**one, "index": 1}
    vote = named_operation("feedback")
    for tiers, code in (
        ([[one], [one]], "invalid_value"),
        ([[one, two, one]], "invalid_value"),
        ([[one], [{**one, "index": 2}]], "answer_not_found"),
        ([[one], []], "invalid_value"),
        ([[one]], "invalid_value"),
        ([[{**one, "index": number}] for number in range(65)], "invalid_value"),
        ([[one], [{"completion_id": ""}]], "missing_parameter"),
    ):
        error = await service.refused(vote, {"ranking": {"tiers": tiers}}, who=ANN)
        assert (error["status"], error["code"]) == (400, code), (tiers, error)
        assert error["param"].startswith("ranking"), error


async def test_what_is_another_persons(service: Asked) -> None:
    reply = await service.chat(ANN)
    event = await service.vote(ANN, reply["id"])
    conversation = reply["rlhf"]["conversation_id"]
    shown = (await service.ask(named_operation("compare"), ASK, ANN))[1]
    for name, body, path in (
        ("feedback_status", None, {"event_id": event}),
        ("withdraw_feedback", None, {"event_id": event}),
        ("edit_feedback", RIGHT["feedback"], {"event_id": event}),
        ("conversation", None, {"conversation_id": conversation}),
        ("erase", None, {"conversation_id": conversation}),
        ("comparison", None, {"comparison_id": shown["comparison_id"]}),
    ):
        error = await service.refused(named_operation(name), body, who=BOB, **path)
        assert error["status"] == 404, (name, error)
    error = await service.refused(named_operation("feedback"), {**RIGHT["feedback"], "replaces": event}, who=BOB)
    assert (error["status"], error["param"]) == (403, "replaces")
    assert (await service.ask(named_operation("feedback_status"), who=ANN, event_id=event))[0] == 200
    assert (await service.ask(named_operation("conversation"), who=ANN, conversation_id=conversation))[0] == 200


async def test_one_person_with_ten_thousand_keys_on_one_answer(service: Asked) -> None:
    """Votes are bounded by person, however many idempotency keys it thinks of; what was taken is logged."""
    vote = {"thumb": {"answer": {"completion_id": (await service.chat("chat"))["id"]}, "up": True}}
    refused = 0
    for batch in range(10):
        lines = (json.dumps({**vote, "idempotency_key": f"{batch} {number}"}) for number in range(1000))
        status, said = await service.ask(named_operation("feedback_batch"), "\n".join(lines).encode(), "feedback")
        assert status == 200
        for result in said["results"]:
            if "event_id" in result:
                service.known.voted(result["event_id"], "feedback")
            else:
                refused += 1
                assert result["error"]["type"] == "rate_limit_error", result
    assert refused > 5000, "3600 an hour"


# Callers


async def test_keys_and_signatures_that_do_not_hold(service: Asked) -> None:
    for operation, who in itertools.product(OPERATIONS, service.who.values()):
        if (expected := who.refusal(operation)) is not None:
            error = await service.refused(operation, RIGHT.get(operation.name), who=who.name)
            assert error["status"] == expected, (operation.name, who.name, error)


# The wire


async def _exchange(url: str, data: bytes, *, end: bool = True) -> bytes:
    host, port = url.rpartition("//")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        if end:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), 60)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def _post(service: Asked, path: str, body: bytes) -> bytes:
    key = service.who["chat"].headers()["Authorization"]
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def test_requests_that_are_cut_off_anywhere(service: Asked) -> None:
    whole = _post(service, "/v1/chat/completions", json.dumps(ASK).encode())
    for cut in range(1, len(whole), 5):
        assert b" 50" not in (await _exchange(service.process.url, whole[:cut]))[:12]
    assert b" 200 OK" in await _exchange(service.process.url, whole, end=False)


async def test_a_body_that_comes_byte_by_byte(service: Asked) -> None:
    """Ones that never end: tests/services/chat/transport/test_unfinished.py."""
    host, port = service.process.url.rpartition("//")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for byte in _post(service, "/v1/chat/completions", json.dumps(ASK).encode()):
        writer.write(bytes([byte]))
        await writer.drain()
    assert b" 200 OK" in await asyncio.wait_for(reader.read(), 60)
    writer.close()


async def test_streams_of_http2_that_are_reset_at_once(service: Asked) -> None:
    """Calls by the thousand, each taken back before it is answered."""
    calls = b"".join(
        Frame(kind=1, flags=4, stream=stream, payload=CALL).sent()
        + Frame(kind=3, flags=0, stream=stream, payload=b"\x00\x00\x00\x08").sent()
        for stream in range(1, 4001, 2)
    )
    settings = Frame(kind=4, flags=0, stream=0, payload=b"").sent()
    for _ in range(3):
        await _exchange(service.process.grpc, PREFACE + settings + calls)
    await service.chat(ANN)
    assert await service.process.answers()
