"""Alerts that fire for real: a chat service as a process, a real Prometheus, and what an operator fears.

The engine is a stand-in (tests/support/fake_vllm.py) that is stopped as a real one dies. Durations are shortened, and
nothing else (tests/support/alerting.py).
"""

import asyncio
import ssl
import time
from pathlib import Path

import aiohttp
import orjson
import pytest

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.metrics import machine
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from tests.support.alerting import alerts
from tests.support.certificates import Authority
from tests.support.chat_process import ChatProcess, chat_process
from tests.support.chat_service import ASK, running
from tests.support.parted import fill
from tests.support.prometheus import Target
from tests.support.small_disk import cannot_mount, small_disk
from tests.support.waiting import eventually

slow = pytest.mark.ops


def target(service: ChatProcess) -> list[Target]:
    return [Target("chat", service.url.removeprefix("http://"))]


async def post(service: ChatProcess, path: str, body: object) -> int:
    async with service.session.post(service.url + path, data=orjson.dumps(body)) as response:
        await response.read()
        return response.status


async def unready(service: ChatProcess) -> bool:
    return await service.ready() == 503


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def thumb(user: str = "ann") -> dict[str, object]:
    return {"thumb": {"answer": {"completion_id": "chatcmpl-any"}, "up": True}, "user": user}


async def test_an_engine_that_dies_and_comes_back(tmp_path: Path) -> None:
    async with chat_process(tmp_path) as service, alerts(tmp_path, target(service)) as found:
        await service.engine.stop()
        await found.fires("RlhfEngineDown", severity="critical", service="engine", job="chat")
        await found.fires("RlhfEngineNotReady", severity="warning")
        await service.engine.start(tmp_path / "engine.sock")
        await found.ends("RlhfEngineDown")
        await found.ends("RlhfEngineNotReady")


async def test_a_log_whose_disk_is_full(tmp_path: Path) -> None:
    if why := cannot_mount(tmp_path / "tried"):
        pytest.skip(why)
    with small_disk(tmp_path / "state" / "log", mib=2) as disk:
        async with chat_process(tmp_path) as service, alerts(tmp_path, target(service)) as found:
            disk.fill()

            async def vote() -> None:
                while True:
                    await post(service, "/v1/feedback", thumb() | {"reason": 8000 * "x"})
                    await asyncio.sleep(0.1)

            voting = asyncio.create_task(vote())
            await found.fires("RlhfFeedbackRefused", severity="critical")
            await found.fires("RlhfEventLogFails", severity="critical")
            await found.fires("RlhfDiskFills", severity="critical", folder="log")
            await found.fires("RlhfDiskFills", severity="warning", folder="log")
            await ended(voting)
            disk.free()
            for alert in ("RlhfFeedbackRefused", "RlhfEventLogFails", "RlhfDiskFills"):
                await found.ends(alert)


@slow
async def test_requests_that_fail_spend_the_error_budget(tmp_path: Path) -> None:
    async with chat_process(tmp_path) as service, alerts(tmp_path, target(service)) as found:
        await service.ask()
        await service.engine.stop()
        await found.fires("RlhfEngineDown")

        async def ask() -> None:
            while True:
                assert await post(service, "/v1/chat/completions", ASK) == 503
                await asyncio.sleep(0.05)

        asking = asyncio.create_task(ask())
        await found.fires("RlhfChatErrorBudgetBurnsFast", severity="critical", service="chat")
        await found.fires("RlhfChatErrorBudgetBurnsSlowly", severity="warning")
        await ended(asking)


@slow
async def test_an_engine_that_dies_again_and_again(tmp_path: Path) -> None:
    async with chat_process(tmp_path) as service, alerts(tmp_path, target(service), share=1 / 30) as found:
        for _ in range(3):
            await service.engine.stop()
            await eventually(lambda: unready(service))
            await service.engine.start(tmp_path / "engine.sock")
            await eventually(service.answers)
        await found.fires("RlhfEngineRestarts", severity="warning", service="engine")


@slow
async def test_a_chat_service_that_is_gone(tmp_path: Path) -> None:
    async with chat_process(tmp_path) as service, alerts(tmp_path, target(service)) as found:
        await service.kill()
        await found.fires("RlhfServiceGone", severity="critical", service="chat", job="chat")


@slow
async def test_a_person_who_votes_beyond_the_cap(tmp_path: Path) -> None:
    limits = {"person": {"votes_per_hour": 2}}
    async with chat_process(tmp_path, limits=limits) as service, alerts(tmp_path, target(service)) as found:
        said = [await post(service, "/v1/feedback", thumb()) for _ in range(60)]
        assert (said.count(200), said.count(429)) == (2, 58)
        await found.fires("RlhfPersonCapHit", severity="warning", limit="votes")


@slow
async def test_secrets_that_vanish_while_the_service_runs(tmp_path: Path) -> None:
    async with chat_process(tmp_path) as service, alerts(tmp_path, target(service)) as found:
        salt = service.state.root / "person.salt"
        kept = salt.read_bytes()
        salt.unlink()
        await found.fires("RlhfSecretsDamaged", severity="critical")
        salt.write_bytes(kept)
        await found.ends("RlhfSecretsDamaged")


@slow
async def test_a_certificate_that_ends_tomorrow_and_a_new_one_that_cannot_be_used(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    files = authority.issue("server", days=90)
    tls = {"cert_file": str(files.cert), "key_file": str(files.key)}
    async with running(tmp_path, tls=tls) as service:
        address = service.url.removeprefix("http://")

        async def connect() -> None:
            """A new connection has the files read again."""
            context = ssl.create_default_context(cafile=files.authority)
            async with aiohttp.ClientSession() as session, session.get(f"https://{address}/healthz", ssl=context):
                pass

        async with alerts(tmp_path, [Target("chat", address, scheme="https")]) as found:
            authority.issue("server", days=1)
            await connect()
            await found.fires("RlhfCertificateExpires", severity="critical")
            await found.fires("RlhfCertificateExpires", severity="warning")
            files.cert.write_text("no certificate")
            await connect()
            await found.fires("RlhfCertificateRefused", severity="warning")
            authority.issue("server", days=90)
            await connect()
            await found.ends("RlhfCertificateExpires")
            await found.ends("RlhfCertificateRefused")


@slow
async def test_a_defect_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No defect is known that could be provoked: one is put into the running service."""
    async with running(tmp_path) as service:
        async with alerts(tmp_path, [Target("chat", service.url.removeprefix("http://"))]) as found:
            monkeypatch.setattr(service.chat.versions, "rows", None)
            status, _ = await service.get("/v1/versions")
            assert status == 500
            await found.fires("RlhfInternalErrors", severity="warning")


@slow
async def test_people_who_say_the_contrary_of_what_the_gate_predicted(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    state.person_hash()  # by which the log names people
    with LocalLog(state.log) as log:
        async with running(tmp_path, log=log) as service:
            async with alerts(tmp_path, [Target("chat", service.url.removeprefix("http://"))]) as found:
                await asyncio.to_thread(fill, open_registry(state.versions), log, 6, liked=0.25)
                await found.fires("RlhfPredictionsPart", severity="warning")


@slow
async def test_a_clock_that_is_an_hour_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own clock stays as it is: the service is told another time."""
    right = time.time
    ahead_s = 0.0
    monkeypatch.setattr(machine.time, "time", lambda: right() + ahead_s)
    async with running(tmp_path) as service:
        async with alerts(tmp_path, [Target("chat", service.url.removeprefix("http://"))]) as found:
            ahead_s = 3600.0
            await found.fires("RlhfClockOff", severity="warning", service="platform")
            ahead_s = 0.0
            await found.ends("RlhfClockOff")
