"""The sampler against a real HTTP server that plays the chat service."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rlhf_online.errors import ConfigError, EngineUnavailable, InvalidInput
from rlhf_online.rollout.sampler import Sampler
from tests.support.certificates import Authority

TOKEN = "credential"


class Chat(ThreadingHTTPServer):
    """Answers prompt [p…] with [p, 2] and [p, p, 9]; `statuses` are given first, one a request.

    The engine behind it writes `max_num_seqs` answers together. It replies once `together` requests have been there at
    a time, and to those of prompts of `held` once `release` is set."""

    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.max_num_seqs = 64
        self.together = 0
        self.now = self.most = 0
        self.changed = threading.Condition()
        self.held: set[int] = set()
        self.release = threading.Event()
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
        with self.server.changed:
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
            self.server.changed.notify_all()
            self.server.changed.wait_for(lambda: self.server.most >= self.server.together, timeout=10)
        if self.server.held.intersection(prompt[0] for prompt in body["prompts"]):
            assert self.server.release.wait(10)
        with self.server.changed:
            self.server.now -= 1
        answers = [
            [
                {"token_ids": [prompt[0], 2], "logprobs": [-1.0, -0.5], "finish_reason": "stop"},
                {"token_ids": [prompt[0], prompt[0], 9], "logprobs": [-1.0] * 3, "finish_reason": "length"},
                {"token_ids": [], "logprobs": [], "finish_reason": "abort"},
            ]
            for prompt in body["prompts"]
        ]
        said = {"policy_version": "policy-000007", "max_num_seqs": self.server.max_num_seqs, "results": answers}
        return self._reply(200, said)

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
    assert [len(body["prompts"]) for body in chat.bodies] == [1] * 30
    assert len(rollouts) == len({r.rollout_id for r in rollouts}) == 90
    assert [r.prompt_token_ids[0] for r in rollouts] == [number for number in range(30) for _ in range(3)]


@pytest.mark.parametrize(("max_num_seqs", "n", "together"), [(64, 4, 12), (96, 4, 18), (8, 4, 2), (64, 64, 3)])
def test_the_engine_has_three_times_as_much_to_do_as_it_can_do_together(
    chat: Chat, sampler: Samplers, max_num_seqs: int, n: int, together: int
) -> None:
    chat.max_num_seqs = max_num_seqs
    made = sampler()
    made.serving((1, 3))  # which tells how many it can do
    chat.bodies.clear()
    chat.together, chat.most = together, 0
    made.sample([(number, 3) for number in range(120)], n, 8, 1.0)
    assert chat.most == together and len(chat.bodies) > together


def test_what_has_come_is_given_on_while_the_rest_is_written(chat: Chat, sampler: Samplers) -> None:
    chat.held = {8, 9, 10, 11}
    stream = sampler().stream([(number, 3) for number in range(16)], 4, 8, 1.0)
    came = []
    while len(came) < 8:
        prompts, rollouts = next(stream)
        came += prompts
        assert {rollout.prompt_token_ids for rollout in rollouts} == {*prompts}
    assert came == [(number, 3) for number in range(8)]
    chat.release.set()
    assert [prompt for prompts, _ in stream for prompt in prompts] == [(number, 3) for number in range(8, 16)]


def test_who_stops_looking_asks_no_more(chat: Chat, sampler: Samplers) -> None:
    chat.max_num_seqs = 16
    made = sampler()
    made.serving((1, 3))
    stream = made.stream([(number, 3) for number in range(400)], 4, 8, 1.0)
    next(stream)
    stream.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert len(chat.bodies) < 100 / 2, "three are under way at a time"


def test_connections_are_kept(chat: Chat, sampler: Samplers) -> None:
    chat.statuses = [503]
    made = sampler()
    for _ in range(3):
        made.sample([(number, 3) for number in range(6)], 64, 8, 1.0)
    assert len(chat.bodies) == 19 and len(chat.connections) <= 3


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
    assert len(rollouts) == 6 and len({r.prompt_token_ids for r in rollouts}) == 2


def test_it_asks_which_version_serves(chat: Chat, sampler: Samplers) -> None:
    assert sampler().serving((30, 3)) == "policy-000007"


def test_a_wrong_credential_is_said_at_once(chat: Chat, sampler: Samplers) -> None:
    with pytest.raises(InvalidInput, match="are chat_url and state_dir those of this chat service"):
        sampler(token="wrong").sample([(30, 3)], 1, 8, 1.0)


def test_nobody_there_is_unavailable(chat: Chat, sampler: Samplers) -> None:
    with pytest.raises(EngineUnavailable, match="does not answer"):
        sampler(url="http://127.0.0.1:1").sample([(30, 3)], 1, 8, 1.0, retry_s=0.0)


def test_over_tls_it_asks_whom_the_named_authorities_vouch_for_and_nobody_else(chat: Chat, tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ours").issue("chat")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours.cert, ours.key)
    chat.socket = context.wrap_socket(chat.socket, server_side=True, do_handshake_on_connect=False)
    url = chat.url.replace("http:", "https:")
    with closing(Sampler(url, TOKEN, (2,), ca_file=str(ours.authority))) as sampler:
        assert sampler.serving((30, 3)) == "policy-000007"
    for ca_file in (str(Authority(tmp_path / "theirs").file), ""):
        with closing(Sampler(url, TOKEN, (2,), ca_file=ca_file)) as sampler:
            with pytest.raises(EngineUnavailable, match=r"does not answer: .*CERTIFICATE_VERIFY_FAILED"):
                sampler.serving((30, 3))
    with pytest.raises(ConfigError, match=r"chat\.key cannot be used \(it holds no certificate in PEM\)"):
        Sampler(url, TOKEN, (2,), ca_file=str(ours.key))
