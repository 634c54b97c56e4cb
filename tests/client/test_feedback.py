"""Votes from a program: what is sent, and that a vote is sent until it is on disk, as one event."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf_online.client import Answer, AsyncFeedback, Feedback, NotSent, Refused
from rlhf_online.client.sending import Sender
from rlhf_online.errors import InvalidInput
from rlhf_online.events import Correction, Implicit, Pairwise, Ranking, Thumb, Withdrawal
from tests.support.chat_service import Service

TAKEN = (200, {}, {"event_id": "e-1", "position": {"local": 1}})


class Replies(BaseHTTPRequestHandler):
    """Answers each request with the next of `replies`; None breaks the connection off after it was read."""

    replies: list[tuple[int, dict[str, str], Any] | None]
    bodies: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if (reply := self.replies.pop(0)) is None:
            self.close_connection = True
            return
        status, headers, said = reply
        data = json.dumps(said).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def replying(*replies: tuple[int, dict[str, str], Any] | None) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server's address, and the bodies that it was sent."""
    bodies: list[dict[str, Any]] = []
    handler = type("Handler", (Replies,), {"replies": list(replies), "bodies": bodies})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sender(url: str, waits: list[float], tries: int = 5) -> Sender:
    return Sender(url=url, headers={}, timeout_s=5.0, tries=tries, sleep=waits.append)


VOTE = {"thumb": {"answer": {"completion_id": "a", "index": 0}, "up": True}}


def test_it_is_sent_until_it_is_on_disk_under_one_key() -> None:
    waits: list[float] = []
    with replying((503, {"Retry-After": "2"}, {}), None, (429, {}, []), TAKEN) as (url, bodies):
        vote = sender(url, waits).send(VOTE)
    assert (vote.event_id, vote.position, vote.answer) == ("e-1", {"local": 1}, VOTE["thumb"]["answer"])
    assert len(bodies) == 4 and len({body["idempotency_key"] for body in bodies}) == 1
    assert waits == [2.0, 0.5, 1.0]


def test_what_is_refused_is_not_sent_again() -> None:
    said = {"error": {"message": "up: missing", "param": "thumb.up", "code": "missing_parameter"}}
    with replying((400, {}, said)) as (url, bodies), pytest.raises(Refused, match="up: missing") as caught:
        sender(url, []).send(VOTE)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "thumb.up", "missing_parameter")
    assert len(bodies) == 1


def test_what_could_not_be_sent_can_be_sent_later_as_the_same_vote() -> None:
    waits: list[float] = []
    with replying(*[(500, {}, {})] * 2, TAKEN) as (url, bodies):
        with pytest.raises(NotSent, match="after 2 tries") as caught:
            sender(url, waits, tries=2).send(VOTE)
        sender(url, waits).send(caught.value.body)
    assert len({body["idempotency_key"] for body in bodies}) == 1 and len(bodies) == 3
    assert waits == [0.25]


def test_nobody_at_the_address() -> None:
    with replying() as (url, _):
        pass
    with pytest.raises(NotSent, match="Connection refused"):
        sender(url, [], tries=1).send(VOTE)
    with pytest.raises(InvalidInput, match="no address"):
        Feedback("localhost:8000")


async def test_every_kind_of_vote_is_taken(service: Service) -> None:
    feedback = AsyncFeedback(service.url + "/v1")
    _, reply = await service.ask(n=2)
    first, second = (Answer(reply["id"], index) for index in range(2))
    vote = await feedback.thumb(first, up=True, user="ann", reason="short")
    await feedback.thumb(first, up=False, user="ann", replaces=vote)
    await feedback.correct("a better text", second, user="ann")
    await feedback.prefer(first, second, strength=1, shown=[second, first])
    await feedback.rank([[second], [first]])
    await feedback.implicit("regenerate", first)
    withdrawn = await feedback.thumb(second, up=True, user="bob")
    await feedback.withdraw(withdrawn, user="bob")
    logged = service.sink.feedback
    kinds = [Thumb, Thumb, Correction, Pairwise, Ranking, Implicit, Thumb, Withdrawal]
    assert [type(vote.kind) for vote in logged] == kinds
    assert logged[0].reason == "short" and logged[1].replaces == vote.event_id
    assert [ref.index for ref in logged[3].shown] == [1, 0]
    assert logged[7].replaces == withdrawn.event_id and logged[7].answers() == logged[6].answers()


@pytest.mark.parametrize(
    "answer",
    [
        "chatcmpl-1",
        Answer("chatcmpl-1"),
        {"id": "chatcmpl-1", "choices": []},
        SimpleNamespace(id="chatcmpl-1"),
        SimpleNamespace(id="run-7", response_metadata={"id": "chatcmpl-1"}),  # LangChain's
    ],
)
def test_an_answer_is_named_as_its_client_has_it(answer: Any) -> None:
    with replying(TAKEN) as (url, bodies):
        Feedback(url).thumb(answer, up=True)
    assert bodies[0]["thumb"]["answer"] == {"completion_id": "chatcmpl-1", "index": 0}


@pytest.mark.parametrize("answer", [7, "", {}, SimpleNamespace(id=None)])
def test_what_names_no_answer(answer: Any) -> None:
    with pytest.raises(InvalidInput, match="names no answer"):
        Feedback().thumb(answer, up=True)


def test_the_last_answer_is_kept() -> None:
    feedback = Feedback()
    with pytest.raises(InvalidInput, match="which answer"):
        feedback.thumb(up=True)
    assert feedback.keep({"id": "a"}) == {"id": "a"} and feedback.last == Answer("a")
    stream = feedback.follow({"id": name} for name in "bc")
    assert next(stream) == {"id": "b"} and feedback.last == Answer("b"), "from its first chunk on"
    assert list(stream) == [{"id": "c"}] and feedback.last == Answer("c")


def test_votes_go_where_the_client_beside_chats_under_its_key_and_end_user() -> None:
    headers = {"Authorization": "Bearer k", "X-End-User": "ann.1.ab", "User-Agent": "x", "X-Other": object()}
    client: Any = SimpleNamespace(base_url="http://127.0.0.1:1/v1/", default_headers=headers)
    made = Feedback.beside(client)._sender  # noqa: SLF001
    assert made == replace(made, url="http://127.0.0.1:1/v1/")
    assert made.headers == {"Authorization": "Bearer k", "X-End-User": "ann.1.ab"}


def test_it_needs_the_standard_library_alone() -> None:
    program = """
import sys, rlhf_online.client
print({name.split(".")[0] for name in sys.modules} - sys.stdlib_module_names - {"__main__", "rlhf_online"})
"""
    run = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
