"""The chat service as a process of its own, around the fake engine of this one, with a client that counts."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from rlhf_online.config import ChatSettings, LogSettings, Tuning, dump
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Envelope
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest
from rlhf_online.wire import decode
from tests.support.chat_service import ASK
from tests.support.events import events
from tests.support.fake_vllm import FakeVllm, fake_vllm
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
FILE_LOG = LogSettings()


class Stream:
    """A streamed answer that has begun."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._received = b""

    async def first_word(self) -> str:
        """Wait for it; returns the completion's id."""
        while b"hello" not in self._received:
            self._received += await self._response.content.readany()
        return events(self._received)[0]["id"]

    async def rest(self) -> list[dict[str, Any]]:
        """All events to the end. Raises aiohttp.ClientError for a stream that breaks off."""
        self._received += await self._response.read()
        assert self._received.endswith(b"data: [DONE]\n\n")
        return events(self._received)

    def leave(self) -> None:
        """Close the connection."""
        self._response.close()


class ChatProcess:
    """A service that can be started again and again on one state folder.

    `acknowledged` are the event ids that it said were on disk.
    """

    def __init__(
        self,
        folder: Path,
        engine: FakeVllm,
        session: aiohttp.ClientSession,
        log: LogSettings,
        *,
        tuning: Tuning = "lora",
        **settings: Any,
    ) -> None:
        self.state = StateDir(folder / "state")
        self.engine, self.session = engine, session
        self.url = self.grpc = ""
        self.acknowledged: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        self._settings, self._ready, self.output = folder / "chat.toml", folder / "ready.json", folder / "chat.out"
        address = {"mode": "external", "url": f"unix:{folder / 'engine.sock'}", "model": str(folder / "base")}
        values = {"state_dir": self.state.root, "http_port": 0, "grpc_port": 0, "ready_file": self._ready}
        values |= {
            "engine": {**address, "tuning": tuning},
            "log": log.model_dump(exclude_unset=True),
            "die_with_parent": True,
            **settings,
        }
        dump(chosen := ChatSettings.model_validate(values), self._settings)
        self.registry = open_registry(self.state.versions, settings=chosen.versions)
        if self.registry.live("policy") is None:
            self.promote()

    def promote(self) -> str:
        """Publish the base model, of which the fake engine needs no file, as a version, and promote it."""
        version = self.registry.reserve("policy")
        self.registry.stage(version)
        self.registry.publish(Manifest(version=version, tuning="lora"))
        self.registry.promote(version)
        return version

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self, module: str = "services.chat") -> None:
        """Start it, and wait until it answers people and has logged that a version began to serve."""
        before = len(self.logged())
        self._ready.unlink(missing_ok=True)
        with self.output.open("ab") as output:
            self.process = await self.spawn(module, output.fileno())
        while not self._ready.exists():
            assert self.process.returncode is None, self.output.read_text()
            await asyncio.sleep(0.01)
        ports = json.loads(self._ready.read_text())
        self.url, self.grpc = f"http://127.0.0.1:{ports['http']}", f"127.0.0.1:{ports['grpc']}"
        await eventually(self.answers)
        await eventually(lambda: len(self.logged()) > before)

    async def spawn(self, module: str, stderr: int) -> asyncio.subprocess.Process:
        """A process with this one's settings."""
        command = [sys.executable, "-m", module, "--config", str(self._settings)]
        return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=stderr)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def ended(self, within_s: float) -> int:
        """Wait for its end; the exit code. Raises TimeoutError."""
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), within_s)

    async def ready(self, within_s: float = 10.0) -> int:
        """Status of the readiness probe; 0 if there is no answer within that time."""
        try:
            timeout = aiohttp.ClientTimeout(total=within_s)
            async with self.session.get(self.url + "/readyz", timeout=timeout) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async def serves(self, version: str) -> bool:
        """Whether that version writes answers now."""
        async with self.session.get(self.url + "/readyz") as response:
            return (await response.json())["serving"] == version

    async def answers(self) -> bool:
        """Whether it is ready for people."""
        return await self.ready() == 200

    async def gone(self) -> bool:
        """Whether nothing answers any more."""
        return not await self.ready()

    async def backlog(self) -> int:
        """Events that Kafka has not confirmed."""
        return await self._metric("rlhf_log_backlog_records")

    async def shipped(self) -> bool:
        """Whether Kafka has confirmed everything."""
        return not await self.backlog()

    async def failed_deliveries(self) -> int:
        """Times that deliveries to Kafka failed."""
        return await self._metric("rlhf_log_delivery_failures_total")

    async def _metric(self, name: str) -> int:
        async with self.session.get(self.url + "/metrics") as response:
            samples = dict(row.rsplit(" ", 1) for row in (await response.text()).splitlines() if row[:1] != "#")
        return int(float(samples[name]))

    async def ask(self) -> str:
        """A whole answer, which must be on disk; its id."""
        async with self.session.post(self.url + "/v1/chat/completions", data=orjson.dumps(ASK)) as response:
            reply = orjson.loads(await response.read())
        assert response.status == 200, reply
        assert reply["rlhf"]["logged"] is True
        self.acknowledged.append(reply["id"])
        return reply["id"]

    async def stream(self) -> Stream:
        body = orjson.dumps({**ASK, "stream": True})
        response = await self.session.post(self.url + "/v1/chat/completions", data=body)
        assert response.status == 200
        return Stream(response)

    async def vote(self, completion_id: str, key: str = "") -> str:
        """A thumb, which must be on disk; its event id."""
        thumb = {"answer": {"completion_id": completion_id}, "up": True}
        body = orjson.dumps({"thumb": thumb, "user": "ann", "idempotency_key": key})
        async with self.session.post(self.url + "/v1/feedback", data=body) as response:
            reply = orjson.loads(await response.read())
        assert response.status == 200, reply
        self.acknowledged.append(reply["event_id"])
        return reply["event_id"]

    def logged(self) -> list[Envelope]:
        """What stands in the local log."""
        with LocalReader(self.state.log) as reader:
            return [decode(record.payload) for record in reader.read({}, 1_000_000)[0]]


@asynccontextmanager
async def chat_process(
    folder: Path, *, log: LogSettings = FILE_LOG, module: str = "services.chat", **settings: Any
) -> AsyncIterator[ChatProcess]:
    """A running service with these settings beside its own, killed in the end if it still runs."""
    connector = aiohttp.TCPConnector(limit=0)
    async with fake_vllm(folder) as engine, aiohttp.ClientSession(connector=connector) as session:
        service = ChatProcess(folder, engine, session, log, **settings)
        try:
            await service.start(module)
            yield service
        finally:
            await service.kill()
