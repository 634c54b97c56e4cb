"""The parser of server-sent events, with the stream cut at every place there is."""

import pytest

from rlhf_online.sse import DONE, EventParser

STREAM = (
    b'data: {"a": 1}\n\ndata: {"b": "\xc3\xa9"}\n\n: a comment\r\nevent: x\r\ndata:{"c": 3}\r\n\r\ndata: [DONE]\n\n'
)
EVENTS = [b'{"a": 1}', b'{"b": "\xc3\xa9"}', b'{"c": 3}', DONE]


@pytest.mark.parametrize("size", range(1, len(STREAM) + 1))
def test_events_are_the_same_whatever_pieces_they_come_in(size):
    parser = EventParser()
    pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS


def test_an_event_comes_with_the_piece_that_ends_its_line():
    parser = EventParser()
    assert parser.feed(b'data: {"a"') == []
    assert parser.feed(b": 1}\n") == [b'{"a": 1}']
    assert parser.feed(b"\ndata: [DONE]") == []
    assert parser.feed(b"\n") == [DONE]
