"""Records of the log, sealed with the key of whose words they hold (`rlhf_online.keystore`); used by `wire`.

What is left to be read of one is what routes, orders and counts it: id, kind, conversation, person, time.
"""

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from rlhf_online import events as ev
from rlhf_online.errors import KeysUnavailable, UndecodableEvent
from rlhf_online.proto.rlhf.v1 import events_pb2 as pb

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

KINDS = {pb.Sealed.KIND_COMPLETION: ev.Completion, pb.Sealed.KIND_FEEDBACK: ev.Feedback}


def seal(record: pb.Envelope, at_ms: int, keys: "Keyring") -> None:
    """Put what is sealed in the place of a completion or a feedback of somebody. Raises KeysUnavailable."""
    completes = record.WhichOneof("event") == "completion"
    event = record.completion if completes else record.feedback
    key = keys.current(event.person)
    assert key is not None, "it was to be made"
    inner = pb.Envelope(completion=record.completion) if completes else pb.Envelope(feedback=record.feedback)
    if record.HasField("imported"):
        inner.imported.CopyFrom(record.imported)
        record.ClearField("imported")
    sealed = pb.Sealed(
        kind=pb.Sealed.KIND_COMPLETION if completes else pb.Sealed.KIND_FEEDBACK,
        conversation_id=event.conversation_id,
        person=event.person,
        at_ms=at_ms,
        key_id=key.id,
        content=key.seal(inner.SerializeToString(deterministic=True), _about(record.event_id, event.person)),
    )
    record.sealed.CopyFrom(sealed)


def unsealed(record: pb.Envelope, keys: "Keyring | None") -> pb.Envelope | ev.Shredded:
    """The sealed record as it was before; what is left of it where the key was deleted.

    Raises UndecodableEvent; KeysUnavailable where it cannot be opened now.
    """
    sealed = record.sealed
    if (kind := KINDS.get(sealed.kind)) is None:
        raise UndecodableEvent(f"what is sealed is of a kind unknown here ({sealed.kind}): upgrade the reader")
    if keys is None:
        raise KeysUnavailable("what people said is sealed: set keystore.url to the key store of who wrote it")
    if (key := keys.find(sealed.person, sealed.key_id)) is None:
        return ev.Shredded(kind=kind, conversation_id=sealed.conversation_id, person=sealed.person, at_ms=sealed.at_ms)
    content = key.open(sealed.content, _about(record.event_id, sealed.person))
    try:
        record.MergeFromString(content)
    except DecodeError as error:
        raise UndecodableEvent(f"what is sealed is no {kind.__name__}: {error}") from error
    return record


def _about(event_id: str, person: str) -> bytes:
    return f"{event_id}\n{person}".encode()
