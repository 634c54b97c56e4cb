"""HTTP and gRPC differ in nothing but transport: each case goes over both, and status, message and effect are compared.

A case says its operation, the JSON body, the same as a message, and the HTTP status that it must end with. Every
chat, and every text that goes on, is asked for as a whole and as a stream.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# (the generated stubs are typed for synchronous channels)

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.rpc import error_details_pb2, status_pb2

from rlhf_online import events
from rlhf_online.end_users import sign
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.proto.rlhf.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    chat_pb2,
    chat_pb2_grpc,
    comparisons_pb2,
    comparisons_pb2_grpc,
    conversations_pb2,
    conversations_pb2_grpc,
    events_pb2,
)
from rlhf_online.state import PersonHash
from rlhf_online.wire import encode
from services.chat.api.operations import OPERATIONS
from services.chat.transport.grpc_errors import CODES
from tests.support import api_keys
from tests.support.api_keys import SECRETS, TOKENS
from tests.support.chat_replies import from_grpc, from_grpc_stream, from_http, from_http_stream
from tests.support.chat_service import Service, running
from tests.support.logged import completion

EARLIER = "5f0c4b8e-3d0a-5b52-9c9e-1a2b3c4d5e6f"
HI = [{"role": "user", "content": "secret words"}]
A, B = {"completion_id": "a"}, {"completion_id": "b", "index": 1}
THUMB = {"thumb": {"answer": A, "up": True}}
SCHEMA = {"type": "object", "properties": {name: {"maxLength": 3} for name in "zyxabc"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "letters", "schema": SCHEMA}}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}
CALL = {"id": "call-1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
CALLED = [
    *HI,
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"},
    {"role": "tool", "content": "3", "tool_call_id": "call-1", "name": "look_up"},
]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "secret"}, {"type": "text", "text": "words"}]}]
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
ANSWERED = ("complete", "complete_text")
"""Operations whose answers come as a whole or as a stream."""
JSON = ("response_format", "tool_choice", "chat_template_kwargs")
"""Fields that a message holds as JSON."""


@dataclass(frozen=True)
class Case:
    operation: str
    body: dict[str, Any]
    status: int
    operator: bool = False
    key: str = ""
    """One of `tests.support.api_keys`: the service has keys, and the call comes with this one."""
    end_user: str = ""
    """What the call says in X-End-User."""
    stream: bool = False
    message: dict[str, Any] | None = None
    """The body in protobuf's JSON, where it is not the same."""
    param: str | None = None


def chat(status: int, param: str | None = None, **fields: Any) -> Case:
    return Case("complete", {"messages": HI, **fields}, status, param=param)


def text(status: int, param: str | None = None, **fields: Any) -> Case:
    return Case("complete_text", {"prompt": "secret words", **fields}, status, param=param)


def vote(status: int, param: str | None = None, **fields: Any) -> Case:
    return Case("feedback", fields, status, param=param)


def keyed(status: int, operation: str, key: str, end_user: str = "") -> Case:
    body = {
        "complete": {"messages": HI, "user": "king"},
        "complete_text": {"prompt": "secret words", "user": "king"},
        "feedback": {**THUMB, "user": "king"},
        "list_versions": {},
        "conversations": {},
    }
    return Case(operation, body.get(operation, {"version": "policy-000000"}), status, key=key, end_user=end_user)


def ranking(*tiers: list[dict[str, Any]]) -> Case:
    wire = {"ranking": {"tiers": [{"answers": tier} for tier in tiers]}}
    return Case("feedback", {"ranking": {"tiers": list(tiers)}}, 200, message=wire)


def compare(status: int, param: str | None = None, **fields: Any) -> Case:
    return Case("compare", {"messages": HI, **fields}, status, param=param)


CASES = {
    "chat": chat(200),
    "chat with all that both know": chat(
        200, n=2, max_tokens=2, temperature=0.5, top_p=0.5, top_k=3, min_p=0.25, seed=-4, stop=["."], store=False,
        user="ann", conversation_id="c", model="base",
    ),
    "chat that is logged": chat(200, temperature=0.5, seed=7, user="ann", conversation_id="c"),
    "chat in single precision": chat(200, temperature=0.7, top_p=0.9, min_p=0.05),
    "a limit under its new name": chat(200, max_completion_tokens=2, max_tokens=3, safety_identifier="ann"),
    "a limit that is too large": chat(400, "max_tokens", max_tokens=1025),
    "penalties": chat(200, frequency_penalty=0.1, presence_penalty=-2.0, repetition_penalty=1.1),
    "an impossible penalty": chat(400, "repetition_penalty", repetition_penalty=0.0),
    "biases": chat(200, logit_bias={"5": 1.5, "900": -100.0}),
    "a bias that is too strong": chat(400, "logit_bias", logit_bias={"5": 101.0}),
    "what ends an answer": chat(200, stop_token_ids=[9, 11], bad_words=["bad"], min_tokens=1, ignore_eos=True),
    "log-probabilities": chat(200, n=2, logprobs=True, top_logprobs=2),
    "other candidates of nothing": chat(400, "top_logprobs", top_logprobs=2),
    "token ids": chat(200, n=2, return_token_ids=True),
    "an audience": chat(200, profile="brief"),
    "no audience": chat(404, "profile", profile="lawyers"),
    "an audience and a version": chat(400, "profile", profile="brief", model="policy-000001"),
    "a schema": chat(200, response_format=FORMAT),
    "a tool that may be called": chat(200, tools=[TOOL], tool_choice="auto", parallel_tool_calls=False),
    "a tool that must be called": chat(200, n=2, tools=[TOOL], tool_choice="required"),
    "a tool by its name": chat(200, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "look_up"}}),
    "a tool that must not be called": chat(200, tools=[TOOL], tool_choice="none"),
    "a tool that is none": chat(400, "tools[0]", tools=["look_up"]),
    "a choice of an unknown tool": chat(
        400, "tool_choice", tools=[TOOL], tool_choice={"type": "function", "function": {"name": "x"}}
    ),
    "thoughts": chat(200, n=2, reasoning_effort="low", chat_template_kwargs={"think": True, "depth": [1, 2.5]}),
    "an unknown effort": chat(400, "reasoning_effort", reasoning_effort="huge"),
    "a template of one's own": chat(
        400, "chat_template_kwargs.chat_template", chat_template_kwargs={"chat_template": "{{ 1 }}"}
    ),
    "a choice that is none": chat(400, "tool_choice", tool_choice=3),
    "a tool that was called": chat(200, messages=CALLED),
    "text in parts": chat(200, messages=PARTS),
    "a part that is no text": chat(400, "messages[0].content[0]", messages=[{"role": "user", "content": [{}]}]),
    "several messages": chat(200, messages=[{"role": "system", "content": ""}, *HI]),
    "no messages": chat(400, "messages", messages=[]),
    "an unknown role": chat(400, "messages[1].role", messages=[*HI, {"role": "king", "content": "x"}]),
    "too many answers": chat(400, "n", n=99),
    "too hot": chat(400, "temperature", temperature=2.5),
    "no mass": chat(400, "top_p", top_p=0.0),
    "a negative top_k": chat(400, "top_k", top_k=-2),
    "too many stops": chat(400, "stop", stop=["."] * 17),
    "a long name": chat(400, "user", user="x" * 513),
    "another model": chat(404, "model", model="gpt-4"),
    "a text": text(200),
    "a text with all that both know": text(
        200, n=2, max_tokens=2, temperature=0.7, top_p=0.9, top_k=3, min_p=0.05, seed=-4, stop=["."], store=False,
        user="ann", conversation_id="c", model="base",
    ),
    "a text under the user's new name": text(200, safety_identifier="ann", max_tokens=-1),
    "a text of tokens": text(200, prompt=[5, 6, 7]),
    "a text of no tokens": text(400, "prompt", prompt=[]),
    "a text of tokens that tells tokens": text(200, n=2, prompt=[5, 6, 7], return_token_ids=True),
    "a text for an audience": text(200, profile="brief"),
    "a text for no audience": text(404, "profile", profile="lawyers"),
    "an empty text": text(400, "prompt", prompt=""),
    "no text": Case("complete_text", {}, 400, param="prompt"),
    "a text with penalties": text(200, frequency_penalty=0.1, presence_penalty=-2.0, repetition_penalty=1.1),
    "a text with biases": text(200, logit_bias={"5": 1.5, "900": -100.0}),
    "what ends a text": text(200, stop_token_ids=[9, 11], bad_words=["bad"], min_tokens=1, ignore_eos=True),
    "log-probabilities of a text": text(200, n=2, logprobs=2),
    "log-probabilities of a text's tokens alone": text(200, logprobs=0),
    "too many candidates of a text": text(400, "logprobs", logprobs=21),
    "a text that is too hot": text(400, "temperature", temperature=2.5),
    "a limit of a text that is too large": text(400, "max_tokens", max_tokens=1025),
    "too many answers to a text": text(400, "n", n=99),
    "a text by another model": text(404, "model", model="gpt-4"),
    "thumb up": vote(200, **THUMB),
    "thumb down": vote(200, thumb={"answer": B, "up": False}),
    "ranking": ranking([B], [A, {"completion_id": "c"}]),
    "pairwise": vote(200, pairwise={"chosen": A, "rejected": B, "strength": 3}),
    "tie": vote(200, pairwise={"chosen": A, "rejected": B, "tie": True}),
    "unsure": vote(200, pairwise={"chosen": A, "rejected": B, "unsure": True}),
    "correction": vote(200, correction={"answer": A, "text": "better"}),
    "implicit": vote(200, implicit={"answer": A, "signal": "stop"}),
    "withdrawal": vote(200, withdrawal={"answer": A}, replaces=EARLIER),
    "all that is known beside a vote": vote(
        200, **THUMB, user="ann", idempotency_key="k", conversation_id="c", reason="because", source="app",
        response_ms=7, shown=[B, A], replaces=EARLIER, objective="helpful",
        reasons=["unclear", "too_long"],
    ),
    "nothing": vote(400),
    "an answer without a name": vote(400, "thumb.answer.completion_id", thumb={"answer": {"index": 1}, "up": True}),
    "no answer": vote(400, "thumb.answer", thumb={"up": True}),
    "an index beyond all": vote(400, "thumb.answer.index", thumb={"answer": {**A, "index": 1024}, "up": True}),
    "one answer ranked": replace(ranking([A]), status=400, param="ranking.tiers"),
    "an empty tier": replace(ranking([A, B], []), status=400, param="ranking.tiers"),
    "an answer ranked twice": replace(ranking([A], [A]), status=400, param="ranking"),
    "too many ranked": replace(ranking([{**A, "index": i} for i in range(65)]), status=400, param="ranking.tiers"),
    "an answer against itself": vote(400, "pairwise", pairwise={"chosen": A, "rejected": A}),
    "much more than much": vote(400, "pairwise.strength", pairwise={"chosen": A, "rejected": B, "strength": 4}),
    "a tie and unsure": vote(
        400, "pairwise.unsure", pairwise={"chosen": A, "rejected": B, "tie": True, "unsure": True}
    ),
    "a blank correction": vote(400, "correction.text", correction={"answer": A, "text": " "}),
    "a long correction": vote(400, "correction.text", correction={"answer": A, "text": "x" * 65_537}),
    "an unknown signal": vote(400, "implicit.signal", implicit={"answer": A, "signal": "sigh"}),
    "a withdrawal of nothing": vote(400, "replaces", withdrawal={"answer": A}),
    "no event id": vote(400, "replaces", **THUMB, replaces="chatcmpl-1"),
    "an unknown reason": vote(400, "reasons[1]", **THUMB, reasons=["unclear", "dull"]),
    "an unknown objective": vote(400, "objective", **THUMB, objective="harmles"),
    "a person": vote(400, "person", **THUMB, person="ann"),
    "a time": vote(400, "created_ms", **THUMB, created_ms=5),
    "a long key": vote(400, "idempotency_key", **THUMB, idempotency_key="x" * 257),
    "a long reason": vote(400, "reason", **THUMB, reason="x" * 8193),
    "too many shown": vote(400, "shown", **THUMB, shown=[{**A, "index": i} for i in range(65)]),
    "a comparison": compare(200),
    "a comparison with all that both know": compare(
        200, n=3, max_tokens=2, temperature=0.5, top_p=0.5, top_k=3, min_p=0.25, seed=-4, user="ann",
        conversation_id="c",
    ),
    "a comparison of versions": compare(200, versions=["policy-000000", "base"]),
    "a comparison for an audience": compare(200, profile="brief"),
    "a comparison for no audience": compare(404, "profile", profile="lawyers"),
    "a comparison for an audience and of versions": compare(
        400, "profile", profile="brief", versions=["policy-000000", "base"]
    ),
    "a comparison of one": compare(400, "versions", versions=["base"]),
    "a comparison of too many": compare(400, "versions", versions=["base"] * 7),
    "a comparison of versions and more": compare(400, versions=["base", "base"], n=3),
    "a comparison of what is the same": compare(400, "temperature", temperature=0.0),
    "a comparison of an unknown version": compare(404, "versions", versions=["base", "policy-000099"]),
    "a comparison with a limit that is too large": compare(400, "max_tokens", max_tokens=1025),
    "a comparison of nothing": compare(400, "messages", messages=[]),
    "another's comparison": Case("comparison", {"comparison_id": "comparison-1", "user": "bob"}, 404,
                                 param="comparison_id"),
    "one's conversations": Case("conversations", {"user": "ann"}, 200),
    "conversations behind one": Case("conversations", {"user": "ann", "after": "c"}, 200),
    "nobody's conversations": Case("conversations", {}, 400, param="user"),
    "conversations behind too long a name": Case("conversations", {"user": "ann", "after": "x" * 513}, 400,
                                                 param="after"),
    "another's conversation": Case("conversation", {"conversation_id": "c", "user": "bob"}, 404,
                                   param="conversation_id"),
    "nobody's conversation": Case("conversation", {"conversation_id": "c"}, 400, param="user"),
    "erase one's conversation": Case("erase", {"conversation_id": "c", "user": "ann"}, 200),
    "erase another's conversation": Case("erase", {"conversation_id": "c", "user": "bob"}, 404,
                                         param="conversation_id"),
    "erase nobody's conversation": Case("erase", {"conversation_id": "c"}, 400, param="user"),
    "versions": Case("list_versions", {}, 200),
    "versions of a kind": Case("list_versions", {"kind": "reward"}, 200),
    "versions of no kind": Case("list_versions", {"kind": "king"}, 400, param="kind"),
    "promote": Case("promote", {"version": "policy-000000"}, 200, operator=True),
    "promote without the credential": Case("promote", {"version": "policy-000000"}, 401),
    "promote what is not there": Case("promote", {"version": "policy-000099"}, 404, operator=True),
    "promote what failed": Case("promote", {"version": "policy-000002"}, 409, operator=True),
    "roll back": Case("rollback", {"reason": "worse"}, 200, operator=True),
    "roll back of a kind without versions": Case("rollback", {"kind": "reward"}, 409, operator=True),
    "roll back of no kind": Case("rollback", {"kind": "king"}, 400, operator=True, param="kind"),
    "roll back of an audience without versions": Case("rollback", {"kind": "policy.brief"}, 409, operator=True),
    "roll back with a long reason": Case("rollback", {"reason": "x" * 1025}, 400, operator=True, param="reason"),
    "roll back without the credential": Case("rollback", {"reason": "worse"}, 401),
    "chat with a key": keyed(200, "complete", "chat"),
    "chat with a key for votes": keyed(403, "complete", "feedback"),
    "vote with a key": keyed(200, "feedback", "feedback"),
    "vote with a key for chat": keyed(403, "feedback", "chat"),
    "versions with a key": keyed(200, "list_versions", "read"),
    "versions with a key for chat": keyed(403, "list_versions", "chat"),
    "promote with an operator's key": keyed(200, "promote", "operator"),
    "promote with a key for reading": keyed(403, "promote", "read"),
    "chat with an operator's key": keyed(200, "complete", "operator"),
    "chat without a key": keyed(401, "complete", "none"),
    "a text with a key": keyed(200, "complete_text", "chat"),
    "a text with a key for votes": keyed(403, "complete_text", "feedback"),
    "a text without a key": keyed(401, "complete_text", "none"),
    "vote without a key": keyed(401, "feedback", "none"),
    "versions without a key": keyed(401, "list_versions", "none"),
    "conversations without a key": keyed(401, "conversations", "none"),
    "conversations with a key": keyed(200, "conversations", "chat"),
    "conversations with a key for votes": keyed(403, "conversations", "feedback"),
    "promote without a key": keyed(401, "promote", "none"),
    "an unknown key": keyed(401, "complete", "unknown"),
    "a revoked key": keyed(401, "complete", "revoked"),
    "an expired key": keyed(401, "feedback", "expired"),
    "a vote for a signed end user": keyed(200, "feedback", "backend", sign(SECRETS["backend"], "ann")),
    "chat for a signed end user": keyed(200, "complete", "backend", sign(SECRETS["backend"], "Ærø")),
    "a vote for nobody by a key for end users": keyed(401, "feedback", "backend"),
    "a forged signature": keyed(401, "feedback", "backend", sign("s" * 43, "ann")),
    "a signature that expired": keyed(401, "feedback", "backend", sign(SECRETS["backend"], "ann", lifetime_s=-3600)),
    "an expiry in milliseconds": keyed(401, "feedback", "backend", sign(SECRETS["backend"], "ann", lifetime_s=1.7e12)),
    "a signature with a key that signs nothing": keyed(401, "feedback", "feedback", sign(SECRETS["backend"], "ann")),
}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a call ended: what the client reads, and what it changed."""

    status: int
    error: dict[str, str | None]
    response: object
    logged: list[events.Event]
    asked: list[tuple[str, list[dict[str, Any]]]]
    """What the engine was sent, word for word, and the messages, whose fields may come in another order."""
    live: str | None
    states: list[str]


@asynccontextmanager
async def prepared(folder: Path, *, keys: bool = False) -> AsyncIterator[Service]:
    """A service with a retired policy version, a live one and one that failed, and a salt that others have too.

    Its log holds what ann asked in the conversation "c"; what it logs itself goes elsewhere.
    """
    (folder / "state").mkdir(parents=True)
    with LocalLog(folder / "state" / "log") as log:
        asked = completion("asked", conversation="c", person=PersonHash(b"salt" * 8)("ann"))
        log.append(encode(asked)).result(30)
    if keys:
        api_keys.write(folder / "state")
    (folder / "state" / "person.salt").write_text("salt" * 8)
    async with running(folder) as service:
        for _ in range(2):
            service.version(live=True)
        service.registry.mark(service.version(), "failed", reason="its probe differs")
        service.host.audiences = {"brief": ""}
        yield service


def sent_with(service: Service, case: Case) -> tuple[tuple[str, str], ...]:
    """HTTP's headers, and gRPC's metadata."""
    token = service.state.operator_token() if case.operator else TOKENS.get(case.key, "")
    named = (("authorization", f"Bearer {token}" if token else ""), ("x-end-user", case.end_user))
    return tuple((name, value) for name, value in named if value)


async def over_http(service: Service, case: Case) -> Ended:
    (operation,) = (operation for operation in OPERATIONS if operation.name == case.operation)
    body, reads = dict(case.body), operation.method in ("GET", "DELETE")
    path = operation.path
    for place in re.findall(r"{(\w+)(?::path)?}", path):
        path = re.sub(rf"{{{place}.*?}}", body.pop(place, ""), path)
    headers = dict(sent_with(service, case))
    async with service.session.request(
        operation.method,
        service.url + path,
        data=None if reads else orjson.dumps(body),
        params=body if reads else None,
        headers=headers,
    ) as response:
        data = await response.read()
    if response.status != 200:
        return ended(service, response.status, orjson.loads(data)["error"])
    if case.operation in ANSWERED:
        return ended(service, 200, {}, from_http_stream(data) if case.stream else from_http(orjson.loads(data)))
    return ended(service, 200, {}, compared(case.operation, orjson.loads(data)))


async def over_grpc(service: Service, case: Case) -> Ended:
    metadata = sent_with(service, case)
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        chatting, admin = chat_pb2_grpc.ChatServiceStub(channel), admin_pb2_grpc.AdminServiceStub(channel)
        comparing = comparisons_pb2_grpc.ComparisonServiceStub(channel)
        keeping = conversations_pb2_grpc.ConversationServiceStub(channel)
        method, request = {
            "complete": (chatting.Complete, chat_pb2.CompleteRequest()),
            "complete_text": (chatting.CompleteText, chat_pb2.CompleteTextRequest()),
            "feedback": (chatting.SendFeedback, chat_pb2.SendFeedbackRequest()),
            "compare": (comparing.Compare, comparisons_pb2.CompareRequest()),
            "comparison": (comparing.GetComparison, comparisons_pb2.GetComparisonRequest()),
            "conversations": (keeping.ListConversations, conversations_pb2.ListConversationsRequest()),
            "conversation": (keeping.GetConversation, conversations_pb2.GetConversationRequest()),
            "erase": (keeping.EraseConversation, conversations_pb2.EraseConversationRequest()),
            "list_versions": (admin.ListVersions, admin_pb2.ListVersionsRequest()),
            "promote": (admin.Promote, admin_pb2.PromoteRequest()),
            "rollback": (admin.Rollback, admin_pb2.RollbackRequest()),
        }[case.operation]
        ParseDict(as_message(case), request)
        try:
            if case.stream:
                method, whole = {
                    "complete": (chatting.StreamComplete, chat_pb2.StreamCompleteRequest),
                    "complete_text": (chatting.StreamCompleteText, chat_pb2.StreamCompleteTextRequest),
                }[case.operation]
                call = method(whole(request=request), metadata=metadata)
                return ended(service, 200, {}, from_grpc_stream([piece async for piece in call]))
            response = await method(request, metadata=metadata)
        except grpc.aio.AioRpcError as refused:
            status = next(status for status, code in CODES.items() if code == refused.code())
            said = dict(refused.trailing_metadata() or ())
            error = {name: said.get(f"error-{name}") for name in ("type", "param", "code")}
            assert fields_at_fault(said) == [name for name in [error["param"]] if name]
            return ended(service, status, {"message": refused.details(), **error})
    if case.operation in ANSWERED:
        return ended(service, 200, {}, from_grpc(response))
    options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
    return ended(service, 200, {}, compared(case.operation, MessageToDict(response, **options)))


def fields_at_fault(trailing: Mapping[str, Any]) -> list[str]:
    """Those that gRPC's libraries read from a status."""
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    found: list[str] = []
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            found += [violation.field for violation in bad.field_violations]
    return found


def as_message(case: Case) -> dict[str, Any]:
    """The body in protobuf's JSON."""
    message = dict(case.message or case.body)
    if case.stream:
        message = {name: value for name, value in message.items() if name not in STREAM}
    match case.operation:
        case "feedback":
            beside = {name: message.pop(name) for name in ("user", "idempotency_key") if name in message}
            return {"feedback": message, **beside}
        case "complete" | "compare":
            message["messages"] = [a_message(**said) for said in message["messages"]]
            for name in message.keys() & JSON:
                message[name] = as_json(message[name])
            if "tools" in message:
                message["tools"] = [as_json(tool) for tool in message["tools"]]
        case "complete_text" if isinstance(message.get("prompt"), list):
            message["prompt_token_ids"] = {"ids": message.pop("prompt")}
    return message


def a_message(*, content: object, **said: object) -> dict[str, Any]:
    known = {name: value for name, value in said.items() if name in events_pb2.Message.DESCRIPTOR.fields_by_name}
    other = {name: value for name, value in said.items() if name not in known}
    if isinstance(content, str):
        known["content"] = content
    elif content is not None:
        other["content"] = content
    return {**known, "other": as_json(other)} if other else known


def as_json(value: object) -> dict[str, str]:
    return {"text": json.dumps(value)}


def ended(service: Service, status: int, error: dict[str, Any], response: object = None) -> Ended:
    names = service.registry.versions()
    return Ended(
        status=status,
        error=error,
        response=response,
        logged=sorted((comparable(envelope.event) for envelope in service.sink.envelopes), key=repr),
        asked=sorted(
            (json.dumps({**request, "messages": []}), request.get("messages", []))
            for request in service.engine.requests
        ),
        live=service.registry.live("policy"),
        states=[f"{name} {service.registry.status(name).state}" for name in names],
    )


def comparable(event: events.Event) -> events.Event:
    """The event without what differs from one request to the next."""
    if isinstance(event, events.Completion):
        conversation = event.conversation_id.partition("-")[0]
        return replace(event, completion_id="", conversation_id=conversation, started_ms=0, finished_ms=0,
                       comparison_id="", slot=0)  # fmt: skip
    if isinstance(event, events.Erasure):
        return replace(event, erased_ms=0)
    assert isinstance(event, events.Feedback)
    return replace(event, created_ms=0)


def compared(operation: str, response: dict[str, Any]) -> object:
    """What both transports answer, but for the id of a vote."""
    match operation:
        case "feedback":
            return {name: int(offset) for name, offset in response["position"].items()}
        case "compare":
            said = ("text", "reasoning", "finish_reason")
            return [[answer[name] for name in said] for answer in response["answers"]]
        case "conversations":
            said = ("conversation_id", "title", "started_ms", "changed_ms", "exchanges")
            return [[str(row[name]) for name in said] for row in response["conversations"]], response["more"]
        case "erase":
            return response["conversation_id"], {name: int(at) for name, at in response["position"].items()}
        case "list_versions":
            rows = response.get("versions", [])
            return [(row.get("manifest", row)["version"], row["kind"], row["state"], row["reason"]) for row in rows]
        case _:
            return response


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_both_transports_say_and_do_the_same(tmp_path: Path, case: Case) -> None:
    variants = [case]
    if case.operation in ANSWERED:
        variants.append(replace(case, body={**case.body, **STREAM}, stream=True))
    async with prepared(tmp_path / "http", keys=bool(case.key)) as service:
        http = [await over_http(service, variant) for variant in variants]
    async with prepared(tmp_path / "grpc", keys=bool(case.key)) as service:
        second = [await over_grpc(service, variant) for variant in variants]
    assert http == second
    assert {(one.status, one.error.get("param")) for one in http} == {(case.status, case.param)}
    assert "secret words" not in str([one.error for one in http])
    done = case.operation if case.status == 200 else ""
    stored = dict.fromkeys(ANSWERED, case.body.get("store", True))
    logs = {**stored, "feedback": 1, "erase": 1, "compare": case.body.get("n", 2)}.get(done, 0)
    assert len(http[-1].logged) == logs * len(variants)
    assert http[-1].live == ("policy-000000" if done in ("promote", "rollback") else "policy-000001")


async def test_a_version_whose_manifest_cannot_be_read_is_a_row(tmp_path: Path) -> None:
    async with prepared(tmp_path) as service:
        (service.state.versions / "policy-000000" / "manifest.json").write_text("{")
        case = CASES["versions"]
        http, second = await over_http(service, case), await over_grpc(service, case)
        rows = http.response
        assert rows == second.response
        assert isinstance(rows, list) and len(rows) == 3
        assert rows[0][:3] == ("policy-000000", "policy", "retired")
        assert "manifest cannot be read" in rows[0][3]
