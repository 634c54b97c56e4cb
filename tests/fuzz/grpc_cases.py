"""Calls of every method that the service's reflection tells of, by everybody, with messages of every kind.

No call may end as if the service had failed (UNKNOWN, INTERNAL): whatever is in the message, whoever sends it, and
whether the caller waits for the answer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from rlhf_online.config.limits import LimitSettings
from services.chat.api.operations import BY_RPC
from tests.fuzz.known import Known
from tests.fuzz.people import Credential
from tests.fuzz.search import Found
from tests.fuzz.wire import Tree, encode, messages, shown

OURS = "rlhf.v1."
REFUSALS = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
FAILED = ("UNKNOWN", "INTERNAL", "DATA_LOSS", "UNIMPLEMENTED")
OF_THE_WHOLE = ("invalid_message", "nested_too_deeply", "invalid_value", "missing_parameter", "invalid_json")
PATIENT_S = 30.0
MAX_BYTES: int = LimitSettings.model_fields["max_body_bytes"].default
OF_ONE_PERSON = {"GetComparison": "comparison_id", "GetFeedback": "event_id", "WithdrawFeedback": "event_id"}
METADATA = (
    (),
    (("idempotency-key", "k" * 300),),
    (("traceparent", "00-zz-1-01"), ("grpc-timeout-ms", "x")),
    (("something-bin", b"\xff\x00"), ("something-bin", b"")),
    tuple((f"name-{number}", "v") for number in range(60)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """`trees` are the messages, one unless the client streams. `patience_s` is the deadline; `leaves_after` so many
    replies the call is cancelled, if the caller leaves at all."""

    trees: Sequence[Tree]
    who: Credential
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    patience_s: float = PATIENT_S
    leaves_after: int | None = None


class GrpcCases:
    """Of one service."""

    def __init__(self, address: str, who: Sequence[Credential], known: Known) -> None:
        self._who, self._known = who, known
        self._channel = grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)])
        database = ProtoReflectionDescriptorDatabase(self._channel)
        pool = DescriptorPool(database)
        self._methods: list[MethodDescriptor] = [
            method
            for name in sorted(database.get_services())
            if name.startswith(OURS)
            for method in pool.FindServiceByName(name).methods
        ]
        told = {_path(method) for method in self._methods}
        assert told == BY_RPC.keys(), f"reflection and the table differ by {told ^ BY_RPC.keys()}"

    def close(self) -> None:
        self._channel.close()

    def searches(self) -> list[tuple[str, SearchStrategy[Any], Callable[[Any], str]]]:
        """A method's name, the calls that are drawn for it, and the attempt."""
        return [
            (method.name, self._calls(method), lambda call, method=method: self._attempt(method, call))
            for method in self._methods
        ]

    def _calls(self, method: MethodDescriptor) -> SearchStrategy[Call]:
        operation = BY_RPC[_path(method)]
        message = messages(method.input_type)
        allowed = [one for one in self._who if one.refusal(operation) is None]
        calls = st.builds(
            Call,
            trees=st.lists(message, max_size=5) if method.client_streaming else message.map(lambda tree: [tree]),
            who=st.one_of(st.sampled_from(allowed), st.sampled_from(allowed), st.sampled_from(self._who)),
            metadata=st.sampled_from(METADATA[:1] * 6 + METADATA),
            patience_s=st.sampled_from((PATIENT_S,) * 8 + (0.0, 0.001, 0.01)),
            leaves_after=st.sampled_from((None,) * 8 + (0, 1)),
        )
        if method.name == "WatchVersions":  # which ends when its caller leaves
            return calls.map(lambda call: replace(call, leaves_after=call.leaves_after or 1))
        return calls

    def _attempt(self, method: MethodDescriptor, call: Call) -> str:
        sent = [encode(tree, self._known.pick) for tree in call.trees]
        replies, status, trailing = self._made(method, call, sent)
        name = status.name
        words = [shown(data, GetMessageClass(method.input_type)()) for data in sent]
        again = f"as {call.who.name}, {name} after {len(replies)} replies, {call.patience_s} s, {call.metadata}\n" + (
            "\n---\n".join(words)
        )
        said = {key: value for key, value in trailing if isinstance(value, str)}
        hasty = call.patience_s < PATIENT_S or call.leaves_after is not None
        if hasty and name in ("CANCELLED", "DEADLINE_EXCEEDED"):
            return name
        if name in (*FAILED, "CANCELLED", "DEADLINE_EXCEEDED") or (name == "UNAVAILABLE" and "error-code" not in said):
            raise Found(f"the service failed: {said} {again}")
        if (refusal := call.who.refusal(BY_RPC[_path(method)])) is not None:
            large = name == "RESOURCE_EXHAUSTED" and any(len(data) > MAX_BYTES for data in sent)  # no matter by whom
            if name != REFUSALS[refusal] and not large and not replies == [] == call.trees:
                raise Found(f"expected {REFUSALS[refusal]}: {again}")
        elif name == "UNAUTHENTICATED":
            raise Found(f"refused, and may: {again}")
        if name == "INVALID_ARGUMENT":
            _check_words(trailing, again)
        if name == "OK":
            self._learn(method, call, sent, replies, again)
        return name

    def _made(
        self, method: MethodDescriptor, call: Call, sent: Sequence[bytes]
    ) -> tuple[list[Message], grpc.StatusCode, Sequence[tuple[str, str | bytes]]]:
        """Make the call: what came, how it ended, and what was said with that."""
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        read = GetMessageClass(method.output_type).FromString
        start = getattr(self._channel, kind)(_path(method), None, read)
        asked: Any = iter(sent) if method.client_streaming else sent[0]
        credential = tuple((key.lower(), value) for key, value in call.who.headers().items())
        options = {"timeout": call.patience_s, "metadata": (*credential, *call.metadata)}
        replies: list[Message] = []
        if method.server_streaming:
            going = start(asked, **options)
            try:
                for reply in _until(going, call.leaves_after):
                    replies.append(reply)
            except grpc.RpcError:
                pass
        else:
            going = start.future(asked, **options)
            if call.leaves_after is not None:
                going.cancel()
            try:
                replies.append(going.result())
            except (grpc.RpcError, grpc.FutureCancelledError):
                pass
        return replies, going.code(), tuple(going.trailing_metadata() or ())

    def _learn(
        self, method: MethodDescriptor, call: Call, sent: Sequence[bytes], replies: list[Message], again: str
    ) -> None:
        """Note the ids that an answer gives out, and that it is told to nobody else."""
        person, said = call.who.person, [MessageToDict(reply, preserving_proto_field_name=True) for reply in replies]
        if method.name in OF_ONE_PERSON:
            asked = GetMessageClass(method.input_type).FromString(sent[0])
            owners = self._known.persons.get(getattr(asked, OF_ONE_PERSON[method.name]))
            if owners and person not in owners:
                raise Found(f"told of what is another person's: {again}")
        match method.name:
            case "Complete" | "StreamComplete":
                end = said[-1].get("final", said[-1])
                ids, logged = [end["completion_id"]], end.get("logged", False)
                self._known.answered(ids, end["conversation_id"], person, logged=logged)
            case "Compare" | "StreamCompare":
                end = said[-1].get("final", said[-1])
                ids, logged = [one["answer"]["completion_id"] for one in end["answers"]], end.get("logged", False)
                name = end["comparison_id"]
                self._known.answered(ids, end["conversation_id"], person, logged=logged, comparison=name)
            case "SendFeedback" | "WithdrawFeedback":
                self._known.voted(said[-1]["event_id"], person)
            case "SendFeedbackBatch":
                for result in said[-1]["results"]:
                    if "event_id" in result:
                        self._known.voted(result["event_id"], person)
            case _:
                pass


def _until(replies: Any, leaves_after: int | None) -> Iterator[Message]:
    """The replies of a stream, which is left after so many."""
    if leaves_after == 0:
        replies.cancel()
    for number, reply in enumerate(replies, 1):
        yield reply
        if number == leaves_after:
            replies.cancel()


def _check_words(trailing: Iterable[tuple[str, str | bytes]], again: str) -> None:
    """That the field at fault is named, by the metadata and by `google.rpc.BadRequest`."""
    said: Mapping[str, str | bytes] = dict(trailing)
    param, code = said.get("error-param"), said.get("error-code")
    if not code or (not param and code not in OF_THE_WHOLE):
        raise Found(f"no field is named: {said} {again}")
    details = said["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    named = error_details_pb2.BadRequest()
    fields = [v.field for detail in status.details if detail.Unpack(named) for v in named.field_violations]
    if param and fields != [param]:
        raise Found(f"google.rpc.BadRequest names {fields} and not {param}: {again}")


def _path(method: MethodDescriptor) -> str:
    assert method.containing_service is not None
    return f"/{method.containing_service.full_name}/{method.name}"
