"""Two thousand cases in CI; and that the fuzzer finds what is wrong where something is.

The seed is fixed, and so are the cases for the same code in the same run: hypothesis also draws from the constants of
the modules that are loaded.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from rlhf_online.events import Envelope
from rlhf_online.proto.rlhf.v1 import chat_pb2, events_pb2
from services.chat.api.operations import BY_RPC, OPERATIONS
from services.chat.feedback.service import FeedbackService
from tests.fuzz.grpc_cases import MAX_BYTES, Call, GrpcCases
from tests.fuzz.http_cases import HttpCases
from tests.fuzz.known import Known
from tests.fuzz.people import credentials
from tests.fuzz.run import BEGIN_ANSWERS, BEGIN_VOTES, fuzz_a_service, report
from tests.fuzz.search import Found, Tally, search
from tests.fuzz.wire import DELIMITED, VARINT, Field, Junk, Pick, encode, shown
from tests.support import api_keys, logged
from tests.support.chat_service import Service, running

CASES, SEED = 2000, 15
SMALL, LARGE = [Field(1, DELIMITED, b"x" * 4000)], [Field(1, DELIMITED, b"x" * (MAX_BYTES + 1))]


async def test_the_service_stands_two_thousand_cases(tmp_path: Path) -> None:
    tally, known = await fuzz_a_service(CASES, SEED, tmp_path)
    assert not tally.found, report(tally, known, SEED)
    assert tally.total >= CASES
    names = {operation.name for operation in OPERATIONS} | {rpc.rpartition("/")[2] for rpc in BY_RPC}
    assert tally.cases.keys() >= names
    assert len(known.answers) > BEGIN_ANSWERS and len(known.votes) > BEGIN_VOTES, "not one drawn case was right"


# What it finds


@pytest.fixture
async def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A service that fails on votes which give a reason."""
    accept = FeedbackService.checked

    def checked(self: FeedbackService, values: Any, caller: Any) -> Envelope:
        if values.get("reason"):
            raise KeyError("reason")
        return accept(self, values, caller)

    monkeypatch.setattr(FeedbackService, "checked", checked)
    (tmp_path / "state").mkdir(mode=0o700)
    api_keys.write(tmp_path / "state")
    async with running(tmp_path) as service:
        yield service


async def test_a_request_that_fails_is_told_as_a_command(broken: Service) -> None:
    def attempts() -> None:
        cases = HttpCases(broken.url, credentials(broken.state.operator_token()), Known())
        drawn, attempt = next((drawn, attempt) for one, drawn, attempt in cases.searches() if one.name == "feedback")
        search("feedback", drawn, attempt, tally, cases=100, seed=1)

    tally = Tally()
    await asyncio.to_thread(attempts)
    assert any(
        "an error of the service: as ann, 500" in found
        and "curl -X POST" in found
        and '"reason": "' in found
        and "/v1/feedback" in found
        for found in tally.found
    ), tally.found


async def test_a_call_that_fails_is_told_as_textproto(broken: Service) -> None:
    def attempts() -> None:
        cases = GrpcCases(broken.grpc, credentials(broken.state.operator_token()), Known())
        for name, drawn, attempt in cases.searches():
            if name == "SendFeedback":
                search(name, drawn, attempt, tally, cases=200, seed=1)
        cases.close()

    tally = Tally()
    await asyncio.to_thread(attempts)
    assert any("as ann, INTERNAL" in found and "feedback {\n  reason: " in found for found in tally.found), tally.found


async def test_what_is_too_large_is_refused_whoever_sent_it(broken: Service) -> None:
    """gRPC refuses it before it is known who may do what; what is not too large is no business of theirs."""

    def attempts() -> list[str]:
        who = credentials(broken.state.operator_token())
        cases = GrpcCases(broken.grpc, who, Known())
        attempt = next(attempt for name, _, attempt in cases.searches() if name == "Promote")
        outcomes = [
            attempt(Call(trees=[tree], who=one)) for tree in (LARGE, SMALL) for one in who if one.name == "feedback"
        ]
        cases.close()
        return outcomes

    assert await asyncio.to_thread(attempts) == ["RESOURCE_EXHAUSTED", "PERMISSION_DENIED"]


def test_what_is_lost_or_logged_twice_is_told() -> None:
    known = Known()
    known.answered(["kept"], "c", "ann", logged=True)
    known.answered(["twice"], "c", "ann", logged=True)
    known.answered(["not stored"], "c", "ann", logged=False)
    known.voted("vote", "ann")
    known.voted("sent twice", "ann")
    log = [logged.completion(name) for name in ("kept", "twice", "twice")]
    log += [logged.thumb("kept", event_id="sent twice")] * 2
    assert known.lost(log) == ["the answer twice is 2 times in the log", "the vote vote is lost"]


def test_a_case_is_made_small() -> None:
    def attempt(number: int) -> str:
        if number > 1000:
            raise Found(f"{number} is too large")
        return "small"

    tally = Tally()
    search("numbers", st.integers(0, 1 << 20), attempt, tally, cases=100, seed=3)
    assert tally.found == ["numbers: 1001 is too large"]


# Messages


def test_a_tree_becomes_the_message_that_the_library_writes() -> None:
    message = events_pb2.Message(role="user", content="zinc")
    request = chat_pb2.CompleteRequest(messages=[message] * 2, n=300, conversation_id="talk-1")
    fields = [Field(1, DELIMITED, b"user"), Field(2, DELIMITED, b"zinc")]
    known = Known()
    known.add("conversation_id", "talk-1", "ann")
    tree = [
        Field(1, DELIMITED, fields, times=2),
        Field(3, VARINT, 300),
        Field(9, DELIMITED, Pick("conversation_id", 7)),
    ]
    assert encode(tree, known.pick) == request.SerializeToString()


def test_what_no_library_writes_is_shown_too() -> None:
    assert shown(encode([Field(1000, DELIMITED, b"a")], lambda *_: None), events_pb2.Json()) == '1000: "a"\n'
    for junk in (Junk(b"\x0a"), Junk(levels=101)):
        assert shown(encode([junk], lambda *_: None), events_pb2.Json()).startswith("no message; in hex: ")
