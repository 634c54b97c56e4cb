"""Messages as bytes, made of descriptors: right ones, and ones that no library would write.

What is drawn is a tree of fields; it becomes bytes when it is sent, when the ids are known that it names (`Pick`).
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

DEEPEST = 4
MANY = 2000
ENOUGH = 1 << 20
"""Bytes of a field that is repeated: more than a message may have."""
VARINT, FIXED64, DELIMITED, GROUP, END_GROUP, FIXED32 = range(6)


@dataclass(frozen=True, slots=True)
class Pick:
    """An id that the service gave out, or a word that means something in a field of that name."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Field:
    """A field on the wire; `value` is a varint, what a fixed or delimited one holds, or a message's fields."""

    number: int
    wire_type: int
    value: "int | bytes | Pick | Sequence[Field]"
    times: int = 1


@dataclass(frozen=True, slots=True)
class Junk:
    """Bytes that are no field, as they are; `levels` of an unknown message in itself."""

    value: bytes = b""
    levels: int = 0


Tree = Sequence[Field | Junk]


def encode(tree: Tree, pick: Callable[[str, int], str | None]) -> bytes:
    """The message. `pick` looks up what is named."""
    return b"".join(_part(each, pick) for each in tree)


def shown(data: bytes, message: Message) -> str:
    """The message as textproto, with what is unknown of it; its bytes in hex where it is none."""
    try:
        message.ParseFromString(data)
    except DecodeError:
        return f"no message; in hex: {data[:2000].hex()}"
    return text_format.MessageToString(message, print_unknown_fields=True)[:4000]


@cache
def messages(descriptor: Descriptor, depth: int = 0) -> SearchStrategy[list[Field | Junk]]:
    """Some of its fields, each as its type has it; now and then something that does not belong there."""

    @st.composite
    def tree(draw: DrawFn) -> list[Field | Junk]:
        if not descriptor.fields or depth > DEEPEST:
            return []
        chosen = draw(st.lists(st.sampled_from(list(descriptor.fields)), max_size=6))
        parts: list[Field | Junk] = [draw(_field(field, depth)) for field in chosen]
        if draw(st.integers(0, 19)) == 19:
            parts.insert(draw(st.integers(0, len(parts))), draw(_wrong(descriptor)))
        return parts

    return tree()


@cache
def _field(field: FieldDescriptor, depth: int) -> SearchStrategy[Field]:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type is not None
            kind, values = DELIMITED, messages(field.message_type, depth + 1)
        case FieldDescriptor.TYPE_STRING:
            kind, values = DELIMITED, _text(field)
        case FieldDescriptor.TYPE_BYTES:
            kind, values = DELIMITED, st.binary(max_size=20)
        case FieldDescriptor.TYPE_DOUBLE:
            kind, values = (
                FIXED64,
                st.floats().map(lambda value: struct.pack("<d", value)) | st.binary(min_size=8, max_size=8),
            )
        case FieldDescriptor.TYPE_FLOAT:
            kind, values = FIXED32, st.floats(width=32).map(lambda value: struct.pack("<f", value))
        case FieldDescriptor.TYPE_BOOL:
            kind, values = VARINT, st.integers(0, 2)
        case _:
            small = st.integers(0, 4)
            kind, values = VARINT, small | small | st.integers(0, (1 << 64) - 1)
    times = st.sampled_from((1,) * 39 + (MANY,)) if field.is_repeated and depth < 2 else st.just(1)
    return st.builds(Field, st.just(field.number), st.just(kind), values, times)


def _text(field: FieldDescriptor) -> SearchStrategy[bytes | Pick]:
    picked = st.builds(Pick, st.just(field.name), st.integers(0, 1 << 16))
    assert field.containing_type is not None
    if field.containing_type.name == "Json":
        return st.sampled_from(JSON)
    return st.one_of(picked, picked, st.text(max_size=20).map(str.encode), st.sampled_from(TEXTS))


JSON = (
    b"{}",
    b'"auto"',
    b'{"type": "json_object"}',
    b'{"type": "function", "function": {"name": "weigh", "parameters": {"type": "object", "properties": {}}}}',
    b'{"content": [{"type": "text", "text": "zinc"}]}',
    b'{"enable_thinking": false}',
    b"[1, 2.5, null, true]",
    b'{"role": null, "content": 7}',
    b"{",
    b'"\\ud800"',
    b"1e999",
    b"[" * 200 + b"]" * 200,
    b"[" * 100_000,
    b'{"a":' * 300 + b"1" + b"}" * 300,
)
TEXTS = (
    b"",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\x00",
    b"\xf0\x9f\x90\x8d" * 200,
    b"zinc " * 20_000,
    b"../../etc",
    b"\xc3",
)


def _wrong(descriptor: Descriptor) -> SearchStrategy[Field | Junk]:
    """What no library writes: a field of another type, an unknown one, half of one, a message without end."""
    numbers = st.sampled_from([field.number for field in descriptor.fields])
    return st.one_of(
        st.builds(Field, numbers, st.just(VARINT), st.integers(0, (1 << 64) - 1)),
        st.builds(Field, numbers, st.just(DELIMITED), st.binary(max_size=20)),
        st.builds(Field, numbers, st.just(FIXED64), st.binary(min_size=8, max_size=8)),
        st.builds(Field, st.integers(1000, (1 << 29) - 1), st.just(DELIMITED), st.binary(max_size=20)),
        st.builds(Junk, st.binary(min_size=1, max_size=12)),
        st.builds(Junk, levels=st.sampled_from((2, 99, 101, 50_000))),
    )


def _part(part: Field | Junk, pick: Callable[[str, int], str | None]) -> bytes:
    match part:
        case Junk(value, 0):
            return value
        case Junk(_, levels):
            return varint(999 << 3 | GROUP) * levels + varint(999 << 3 | END_GROUP) * levels
        case Field(number, kind, value, times):
            data = varint(number << 3 | kind) + _value(kind, value, pick)
            return data * min(times, 1 + ENOUGH // len(data))


def _value(kind: int, value: "int | bytes | Pick | Sequence[Field]", pick: Callable[[str, int], str | None]) -> bytes:
    match value:
        case int():
            return varint(value)
        case bytes():
            data = value
        case Pick(name, number):
            data = (pick(name, number) or "").encode()
        case _:
            data = encode(value, pick)
    return data if kind in (FIXED32, FIXED64) else varint(len(data)) + data


def varint(value: int) -> bytes:
    """A number, seven bits a byte, the lowest first."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
