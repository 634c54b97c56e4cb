"""What people see when something else fails: the engine, the log, their own connection."""

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest

from tests.support.chat_host import ChatHost
from tests.support.chat_service import ASK, Service
from tests.support.events import events
from tests.support.waiting import eventually


def streaming(service: Service) -> Any:
    return service.session.post(service.url + "/v1/chat/completions", data=orjson.dumps({**ASK, "stream": True}))


@pytest.mark.parametrize(
    ("state", "failure", "words"),
    [
        ("starting", "", "starting"),
        ("waiting", "", "first policy version"),
        ("waiting", "policy-000000: 9.7 nats off", "no version serves: policy-000000: 9.7 nats off"),
        ("restarting", "it died", "restarted"),
        ("failed", "no room for the cache", "no room"),
    ],
)
async def test_an_engine_that_is_not_ready(service: Service, state: str, failure: str, words: str) -> None:
    service.host.state, service.host.failure = state, failure
    for fields in ({}, {"stream": True}):
        async with service.session.post(
            service.url + "/v1/chat/completions", data=orjson.dumps({**ASK, **fields})
        ) as response:
            assert response.status == 503
            assert int(response.headers["retry-after"]) > 0
            error = orjson.loads(await response.read())["error"]
    assert words in error["message"]
    assert error["type"] == "server_error"
    status, ready = await service.get("/readyz")
    assert (status, ready["ready"], ready["state"]) == (503, False, state)
    assert words in ready["message"]
    assert await service.metric('rlhf_chat_requests_total{outcome="unavailable"}') == 2
    assert service.engine.requests == []


async def restart_when_asked(host: ChatHost, service: Service) -> None:
    await service.engine.asked.wait()
    await host.restart()


async def test_a_whole_answer_survives_the_engines_death(service: Service) -> None:
    service.engine.die_after = 2
    back = asyncio.create_task(restart_when_asked(service.host, service))
    status, reply = await service.ask()
    await back
    assert status == 200
    assert reply["choices"][0]["message"]["content"] == "hello there"
    assert len(service.engine.requests) == 2
    assert len(service.sink.completions) == 1
    assert await service.metric("rlhf_chat_resent_total") == 1


async def test_a_stream_ends_with_an_error_when_the_engine_dies(service: Service) -> None:
    service.engine.die_after = 2
    await service.engine.hold()
    asking = asyncio.create_task(streaming(service).__aenter__())
    await service.engine.allow(1)
    response = await asking
    received = b""
    while b"hello" not in received:
        received += await response.content.readany()
    await service.engine.release()
    rest = await response.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    last = events(rest)[-1]
    assert "engine" in last["error"]["message"]
    assert last["rlhf"]["logged"] is True
    (completion,) = service.sink.completions
    assert completion.answers[0].finish_reason == "abort"
    assert completion.answers[0].text.startswith("hello")
    assert await service.metric('rlhf_chat_requests_total{outcome="unavailable"}') == 1


async def test_an_error_inside_the_engines_stream(service: Service) -> None:
    service.engine.error_after = 1
    async with streaming(service) as response:
        text = (await response.read()).decode()
    assert '"error"' in text
    assert text.endswith("data: [DONE]\n\n")
    assert len(service.sink.completions) == 1


async def test_a_client_that_leaves_a_stream(service: Service) -> None:
    """The engine stops writing, and what was received is logged as aborted."""
    await service.engine.hold()
    asking = asyncio.create_task(streaming(service).__aenter__())
    await service.engine.allow(1)
    response = await asking
    received = b""
    while b"hello" not in received:
        received += await response.content.readany()
    response.close()
    await service.engine.aborted.wait()
    await eventually(lambda: service.sink.completions)
    (completion,) = service.sink.completions
    assert completion.answers[0].finish_reason == "abort"
    assert completion.answers[0].token_ids == (11,)
    assert service.chat.gateway.active == 0
    assert not service.chat.gateway.flight.generations
    assert await service.metric('rlhf_chat_requests_total{outcome="aborted"}') == 1


async def test_a_client_that_leaves_before_a_whole_answer(service: Service) -> None:
    """Nobody received anything: the engine stops, nothing is logged."""
    await service.engine.hold()
    asking = asyncio.create_task(service.ask())
    await service.engine.allow(1)
    asking.cancel()
    await service.engine.aborted.wait()
    await eventually(lambda: not service.chat.gateway.active)
    assert service.sink.completions == []


@pytest.mark.parametrize("failing", ["raise", "future"])
async def test_chat_goes_on_without_the_log(service: Service, failing: str) -> None:
    service.sink.failing = failing
    status, reply = await service.ask()
    assert status == 200
    assert reply["rlhf"]["logged"] is False
    assert reply["choices"][0]["message"]["content"] == "hello there"
    async with streaming(service) as response:
        assert b'"logged":false' in await response.read()
    assert await service.metric("rlhf_log_failures_total") == 2
    status, ready = await service.get("/readyz")
    assert status == 503
    assert "log" in ready["log"]


async def test_a_pod_that_lags_is_not_ready_and_answers_all_the_same(service: Service) -> None:
    pod = service.host.pod
    pod.lag_s, pod.could_not = 75.04, {"policy-000001": "CUDA out of memory", "policy-000002": "as a canary, too"}
    status, ready = await service.get("/readyz")
    assert (status, ready["ready"], ready["lag_s"]) == (200, True, 75.0), "others lag, too"
    pod.behind = "policy-000001 has been live for 75 s, and this pod still serves policy-000000: CUDA out of memory"
    status, ready = await service.get("/readyz")
    assert (status, ready["ready"], ready["state"], ready["message"]) == (503, False, "ready", pod.behind)
    assert ready["could_not"] == pod.could_not
    assert (await service.ask())[0] == 200
    assert await service.metric("rlhf_pod_behind") == await service.metric("rlhf_version_not_servable") == 1
    assert await service.metric("rlhf_version_lag_seconds") == 75.04


async def test_a_store_of_versions_that_is_away_is_said_and_no_reason_to_be_unready(service: Service) -> None:
    service.host.pod.store.failure = "the store of versions has not answered for 31 s: what serves goes on"
    service.host.pod.store.silent_s = 31.0
    status, ready = await service.get("/readyz")
    assert (status, ready["versions"]) == (200, service.host.pod.store.failure)
    assert await service.metric("rlhf_version_store_silent_seconds") == 31
    service.host.pod.store.failure = ""
    assert (await service.get("/readyz"))[1]["versions"] == "ok"


async def test_too_many_at_once(service: Service) -> None:
    service.chat.gateway.max_concurrent = 1
    await service.engine.hold()
    first = asyncio.create_task(service.ask())
    await service.engine.allow(1)
    status, reply = await service.ask()
    assert status == 429
    assert reply["error"]["type"] == "rate_limit_error"
    await service.engine.release()
    assert (await first)[0] == 200
    assert (await service.ask())[0] == 200


async def refused(service: Service) -> None:
    """Wait until the service takes no new connection."""
    while True:
        try:
            async with aiohttp.ClientSession() as session, session.get(service.url + "/healthz"):
                pass
        except aiohttp.ClientError:
            return


async def test_stopping_lets_requests_finish(service: Service) -> None:
    await service.engine.hold()
    asking = asyncio.create_task(service.ask())
    await service.engine.allow(1)
    service.stop.set()
    await refused(service)
    await service.engine.release()
    status, reply = await asking
    assert status == 200
    assert reply["rlhf"]["logged"] is True


async def test_no_text_and_no_name_in_log_lines(service: Service, capfd: pytest.CaptureFixture[str]) -> None:
    await service.ask(user="ann-the-person")
    await service.ask(user="ann-the-person", temperature=9)
    await service.ask(messages="secret words")
    service.engine.die_after = 1
    async with streaming(service) as response:
        await response.read()
    service.sink.failing = "raise"
    correction = {"answer": {"completion_id": "x"}, "text": "secret words"}
    await service.post("/v1/feedback", {"user": "ann-the-person", "correction": correction})
    async with service.session.get(service.url + "/metrics") as response:
        metrics = await response.text()
    out, err = capfd.readouterr()
    for text in (out, err, metrics):
        for private in ("secret words", "hello", "ann-the-person"):
            assert private not in text


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/feedback", "/v1/versions/rollback", "/v1/rollouts"])
async def test_an_upload_that_is_broken_off(
    service: Service, path: str, framing: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Counted, and not a line in the log."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    token = service.state.operator_token()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n{framing}\r\n\r\n"
    writer.write(head.encode() + b"5\r\n")
    await writer.drain()
    writer.close()
    counters = {
        "/v1/chat/completions": 'rlhf_chat_requests_total{outcome="aborted"}',
        "/v1/feedback": 'rlhf_feedback_total{kind="unknown",outcome="aborted"}',
        "/v1/rollouts": 'rlhf_rollout_requests_total{outcome="aborted"}',
    }
    if path in counters:
        await eventually(lambda: service.metric(counters[path]))
    assert (await service.get("/healthz"))[0] == 200
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
