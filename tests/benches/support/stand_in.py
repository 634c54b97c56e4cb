"""An engine of fixed speed: `python -m tests.benches.support.stand_in` prints its port and serves.

It speaks as much of vLLM's HTTP as the gateway needs, and as little work as possible stands behind it: what it takes
must not hide what is measured. How long an answer is and how fast, the prompt says (`prompt`). Each streamed word is
the moment at which it was written, so that whoever reads it knows how long it was on its way.
"""

import argparse
import asyncio
import gc
import os
import re
import time
from typing import cast

import httptools
import orjson
import uvloop

from rlhf_online import process

SPEED = re.compile(rb"(\d+) words, one every (\d+) us")
STREAMED = re.compile(rb'"stream":\s*true')
TOLD = re.compile(rb'"return_token_ids":\s*true')
USAGE = re.compile(rb'"include_usage":\s*true')
STAMP = re.compile(rb"~(\d{12})")
"""A word: microseconds of the machine's monotonic clock."""
MODELS = b'{"data":[{"id":"base"}]}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
PROMPT_IDS = list(range(1, 33))


def prompt(words: int, interval_us: int) -> str:
    """What to ask for an answer of so many words."""
    return f"{words} words, one every {interval_us} us"


def now_us() -> int:
    """As the stamps count."""
    return time.monotonic_ns() // 1000


def _chunk(choices: list[dict[str, object]], **more: object) -> bytes:
    head = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1, "model": "base"}
    return b"data: " + orjson.dumps({**head, "choices": choices, **more}) + b"\n\n"


def _word(finish_reason: str | None, *, told: bool) -> bytes:
    """A word's event, with a hole where the stamp goes; `told`: with its id and its log-probability."""
    choice: dict[str, object] = {"index": 0, "delta": {"content": "~%012d"}, "finish_reason": finish_reason}
    content = [{"token": " word", "logprob": -1.25, "bytes": list(b" word"), "top_logprobs": []}]
    choice |= {"logprobs": {"content": content}, "token_ids": [4711]} if told else {"logprobs": None}
    return _chunk([choice])


def _opening(*, told: bool) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    return _chunk([choice], **({"prompt_token_ids": PROMPT_IDS} if told else {}))


def _usage(words: int) -> dict[str, int]:
    read = len(PROMPT_IDS)
    return {"prompt_tokens": read, "completion_tokens": words, "total_tokens": read + words}


def _control(url: bytes, body: bytes) -> bytes:
    """What vLLM's other routes answer; of its log-probabilities a probe learns that they are finite."""
    if url == b"/v1/models":
        return MODELS
    if url == b"/v1/completions":
        told = {"top_logprobs": [{"token_id:0": -1.0}]}
        return orjson.dumps(
            {"choices": [{"index": i, "logprobs": told} for i in range(len(orjson.loads(body)["prompt"]))]}
        )
    return b"{}"


OPENINGS = {told: _opening(told=told) for told in (False, True)}
WORDS = {(told, last): _word("length" if last else None, told=told) for told in (False, True) for last in (False, True)}


class Connection(asyncio.Protocol):
    """One request after another."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._url = self._body = b""
        self._words = self._written = 0
        self._interval_s = self._began_s = 0.0
        self._told = self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        speed = SPEED.search(self._body)
        if speed is None:
            self._send_whole(_control(self._url, self._body))
            return
        self._words, self._written, self._interval_s = int(speed[1]), 0, int(speed[2]) / 1e6
        self._began_s = self._loop.time()
        if STREAMED.search(self._body):
            self._told, self._counted = TOLD.search(self._body) is not None, USAGE.search(self._body) is not None
            self._timer = self._loop.call_later(self._interval_s, self._send_word)
        else:
            self._timer = self._loop.call_later(self._words * self._interval_s, self._send_answer)

    def _send_word(self) -> None:
        self._written += 1
        last = self._written == self._words
        events = WORDS[self._told, last] % now_us()
        if self._written == 1:
            events = OPENINGS[self._told] + events
        if last:
            events += _chunk([], usage=_usage(self._words)) if self._counted else b""
            events += b"data: [DONE]\n\n"
        data = b"%x\r\n%b\r\n" % (len(events), events)
        self._transport.write((HEAD if self._written == 1 else b"") + data + (b"0\r\n\r\n" if last else b""))
        if not last:
            self._timer = self._loop.call_at(self._began_s + (self._written + 1) * self._interval_s, self._send_word)

    def _send_answer(self) -> None:
        message = {"role": "assistant", "content": " word" * self._words}
        values = {"id": "chatcmpl-0", "object": "chat.completion", "created": 1, "model": "base"}
        choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}]
        self._send_whole(orjson.dumps({**values, "choices": choices, "usage": _usage(self._words)}))

    def _send_whole(self, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )


async def serve() -> None:
    """Until killed."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.freeze()
    gc.disable()
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", type=int, help="the core that it runs on; any by default")
    options = parser.parse_args()
    process.die_with_parent()
    process.raise_open_files()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
