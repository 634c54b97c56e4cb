"""The chat service's real wiring around a fake engine, on real ports."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson

from rlhf_online.config import ChatSettings
from rlhf_online.engine.vllm import EngineClient
from rlhf_online.eventlog.base import Sink
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Event
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Kind, Manifest
from rlhf_online.versions.registry import Registry
from rlhf_online.wire import decode
from services.chat.service import Ports, serve, wire
from services.chat.transport.chat import Chat
from tests.support.chat_host import ChatHost
from tests.support.fake_sink import FakeSink
from tests.support.fake_vllm import FakeVllm

E = TypeVar("E", bound=Event)
ASK = {"messages": [{"role": "user", "content": "secret words"}]}


@dataclass
class Service:
    """A running service and everything around it."""

    chat: Chat
    engine: FakeVllm
    host: ChatHost
    sink: FakeSink
    registry: Registry
    state: StateDir
    session: aiohttp.ClientSession
    url: str
    grpc: str
    stop: asyncio.Event

    async def post(self, path: str, body: Any, token: str = "") -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.post(self.url + path, data=data, headers=headers) as response:
            return response.status, orjson.loads(await response.read())

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        async with self.session.get(self.url + path) as response:
            return response.status, orjson.loads(await response.read())

    async def ask(self, **fields: Any) -> tuple[int, dict[str, Any]]:
        return await self.post("/v1/chat/completions", {**ASK, **fields})

    async def metric(self, line: str) -> float:
        """The value of the sample whose name and labels are `line`; 0 if there is none."""
        async with self.session.get(self.url + "/metrics") as response:
            samples = dict(row.rsplit(" ", 1) for row in (await response.text()).splitlines() if row[:1] != "#")
        return float(samples.get(line, 0))

    def logged(self, kind: type[E]) -> list[E]:
        """All events of this kind in the log on disk, where `running` was given that."""
        with LocalReader(self.state.log) as log:
            events = [decode(record.payload).event for record in log.read({}, 1000)[0]]
        return [event for event in events if isinstance(event, kind)]

    def version(self, *, live: bool = False, kind: Kind = "policy") -> str:
        """A new, empty version in the registry."""
        name = self.registry.reserve(kind)
        self.registry.stage(name)
        self.registry.publish(Manifest(version=name, tuning="lora", kl=0.5, position={"local": 7}))
        if live:
            self.registry.promote(name)
        return name


@asynccontextmanager
async def running(folder: Path, *, log: Sink | None = None, **settings: Any) -> AsyncIterator[Service]:
    """A service on free ports, ended in order. It writes to `log`, if given, and otherwise to the fake `sink`."""
    state = StateDir(folder / "state")
    engine, sink = FakeVllm(), FakeSink()
    (folder / "state").mkdir(parents=True, exist_ok=True)
    await engine.start(folder / "engine.sock")
    host = ChatHost(engine, EngineClient(engine.url))
    registry = open_registry(state.versions)
    engine_settings = {"tool_call_parser": "hermes"}
    values = {"state_dir": state.root, "http_port": 0, "grpc_port": 0, "engine": engine_settings, **settings}
    chat = wire(ChatSettings.model_validate(values), state, registry, host, log or sink)
    stop = asyncio.Event()
    ports: asyncio.Future[Ports] = asyncio.get_running_loop().create_future()

    async def opened(given: Ports) -> None:
        ports.set_result(given)

    server = asyncio.create_task(serve(chat, stop, opened))
    done, _ = await asyncio.wait((server, asyncio.ensure_future(ports)), return_when=asyncio.FIRST_COMPLETED)
    if server in done:
        server.result()
    try:
        async with aiohttp.ClientSession() as session:
            yield Service(
                chat=chat,
                engine=engine,
                host=host,
                sink=sink,
                registry=registry,
                state=state,
                session=session,
                url=f"http://127.0.0.1:{ports.result().http}",
                grpc=f"127.0.0.1:{ports.result().grpc}",
                stop=stop,
            )
    finally:
        await engine.release()
        stop.set()
        await server
        await host.client.close()
        await engine.stop()
