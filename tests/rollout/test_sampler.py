"""The sampler against a real HTTP server that plays the chat service."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rlhf_online.errors import EngineUnavailable, InvalidInput
from rlhf_online.rollout.sampler import Sampler

TOKEN = "credential"


class Chat(ThreadingHTTPServer):
    """Answers prompt [p…] with [p, 2] and [p, p, 9]; `statuses` are given first, one a request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses: list[int] = []
        self.bodies: list[dict] = []
        self.connections: set[tuple[str, int]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Chat  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower than the base class's

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.connections.add(self.client_address)
        if self.headers["Authorization"] != f"Bearer {TOKEN}" or self.path != "/v1/rollouts":
            return self._reply(401, {"error": {"message": "no"}})
        if self.server.statuses:
            return self._reply(self.server.statuses.pop(0), {"error": {"message": "later"}})
        answers = [
            [
                {"token_ids": [prompt[0], 2], "logprobs": [-1.0, -0.5], "finish_reason": "stop"},
                {"token_ids": [prompt[0], prompt[0], 9], "logprobs": [-1.0] * 3, "finish_reason": "length"},
                {"token_ids": [], "logprobs": [], "finish_reason": "abort"},
            ]
            for prompt in body["prompts"]
        ]
        return self._reply(200, {"policy_version": "policy-000007", "results": answers})

    def _reply(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def chat() -> Iterator[Chat]:
    with Chat() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


Samplers = Callable[..., Sampler]


@pytest.fixture
def sampler(chat: Chat) -> Iterator[Samplers]:
    """Makes samplers that are closed after the test; `waits` gets what they wait."""
    with ExitStack() as closed:

        def make(waits: list[float] | None = None, token: str = TOKEN, url: str = chat.url + "/") -> Sampler:
            def pause(seconds: float) -> bool:
                if waits is not None:
                    waits.append(seconds)
                return False

            made = Sampler(url, token, (2,), pause=pause)
            closed.callback(made.close)
            return made

        yield make


def test_answers_become_rollouts(chat: Chat, sampler: Samplers) -> None:
    """One without a token too: whoever learns counts it."""
    rollouts = sampler().sample([(30, 3), (31, 3)], 3, 8, 0.9)
    assert [r.token_ids for r in rollouts] == [(30, 2), (30, 30, 9), (), (31, 2), (31, 31, 9), ()]
    assert [r.prompt_token_ids for r in rollouts] == [(30, 3)] * 3 + [(31, 3)] * 3
    assert [r.finished for r in rollouts] == [True, False, False] * 2
    assert rollouts[1].logprobs == (-1.0, -1.0, -1.0)
    assert {(r.policy_version, r.temperature) for r in rollouts} == {("policy-000007", 0.9)}
    assert chat.bodies == [{"prompts": [[30, 3], [31, 3]], "n": 3, "max_tokens": 8, "temperature": 0.9}]


def test_many_prompts_go_in_several_requests(chat: Chat, sampler: Samplers) -> None:
    rollouts = sampler().sample([(number, 3) for number in range(30)], 64, 8, 1.0)
    assert [len(body["prompts"]) for body in chat.bodies] == [2] * 15
    assert len(rollouts) == len({r.rollout_id for r in rollouts}) == 90


def test_one_connection_serves_many_requests(chat: Chat, sampler: Samplers) -> None:
    chat.statuses = [503]
    sampler().sample([(number, 3) for number in range(6)], 64, 8, 1.0)
    assert len(chat.bodies) == 4 and len(chat.connections) == 1


def test_proxies_of_the_environment_are_for_the_outside(chat: Chat, sampler: Samplers, monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert sampler().serving((30, 3)) == "policy-000007"


def test_it_waits_while_the_engine_loads(chat: Chat, sampler: Samplers) -> None:
    chat.statuses = [503, 409, 429]
    waits: list[float] = []
    assert len(sampler(waits).sample([(30, 3)], 1, 8, 1.0)) == 3
    assert waits == [0.2, 0.4, 0.8]


def test_patience_ends(chat: Chat, sampler: Samplers) -> None:
    chat.statuses = [503] * 9
    with pytest.raises(EngineUnavailable, match="HTTP 503"):
        sampler().sample([(30, 3)], 1, 8, 1.0, retry_s=0.0)


def test_a_pause_may_say_stop(chat: Chat, sampler: Samplers) -> None:
    chat.statuses = [503] * 9
    with pytest.raises(EngineUnavailable):
        with closing(Sampler(chat.url, TOKEN, (2,), pause=lambda seconds: True)) as impatient:
            impatient.sample([(30, 3)], 1, 8, 1.0)
    assert len(chat.bodies) == 1


def test_prompts_that_will_never_be_taken_are_left_out(chat: Chat, sampler: Samplers) -> None:
    chat.statuses = [400]
    rollouts = sampler().sample([(number, 3) for number in range(3)], 64, 8, 1.0)
    assert [r.prompt_token_ids for r in rollouts] == [(2, 3)] * 3


def test_it_asks_which_version_serves(chat: Chat, sampler: Samplers) -> None:
    assert sampler().serving((30, 3)) == "policy-000007"


def test_a_wrong_credential_is_said_at_once(chat: Chat, sampler: Samplers) -> None:
    with pytest.raises(InvalidInput, match="are chat_url and state_dir those of this chat service"):
        sampler(token="wrong").sample([(30, 3)], 1, 8, 1.0)


def test_nobody_there_is_unavailable(chat: Chat, sampler: Samplers) -> None:
    with pytest.raises(EngineUnavailable, match="does not answer"):
        sampler(url="http://127.0.0.1:1").sample([(30, 3)], 1, 8, 1.0, retry_s=0.0)
