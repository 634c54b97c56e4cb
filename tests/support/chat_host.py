"""The chat service's view of an engine's host, without a host: swaps are done when a test says so."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from rlhf_online.canary.record import Canary
from rlhf_online.engine.swap import SwapResult
from rlhf_online.engine.vllm import EngineClient
from rlhf_online.versions.manifest import Change
from services.chat.completions.engine import ChangeListener, SwapListener
from tests.support.fake_vllm import FakeVllm


@dataclass
class FakeStore:
    """A store of versions that answers, until `failure` says otherwise."""

    silent_s: float = 0.0
    failure: str = ""


@dataclass
class FakePod:
    """Keeps up with the others, until told otherwise."""

    name: str = "pod-0"
    store: FakeStore = field(default_factory=FakeStore)
    lag_s: float = 0.0
    behind: str = ""
    could_not: dict[str, str] = field(default_factory=dict)


@dataclass
class ChatHost:
    """`services.chat.completions.engine.Engine` without a process. `swap` is what EngineHost does around a swap."""

    engine: FakeVllm
    client: EngineClient
    state: str = "ready"
    failure: str = ""
    serving: str = "policy-000000"
    model_name: str = "base"
    adapters: tuple[str, ...] = ()
    canary: Canary | None = None
    audiences: dict[str, str] = field(default_factory=dict)
    audience_canaries: dict[str, Canary] = field(default_factory=dict)
    restarts: int = 0
    pod: FakePod = field(default_factory=FakePod)
    swaps: list[SwapResult] = field(default_factory=list)
    on_pause: list[SwapListener] = field(default_factory=list)
    on_restore: list[SwapListener] = field(default_factory=list)
    on_change: list[ChangeListener] = field(default_factory=list)
    while_paused: Callable[[], Awaitable[None]] | None = None

    @property
    def models(self) -> dict[str, str]:
        """The live version, and before it those of `adapters`, which are loaded beside it."""
        return {name: name for name in self.adapters} | {self.serving: self.model_name}

    async def swap(self, new: str, *, ok: bool = True) -> None:
        """Pause, mark, load (`while_paused` happens here), resume on the new or on the old weights."""
        old = self.serving
        await self.engine.pause()
        for listener in self.on_pause:
            await listener(old, new)
        if self.while_paused is not None:
            await self.while_paused()
        if not ok:
            for listener in self.on_restore:
                await listener(old, new)
        self.engine.version += ok
        await self.engine.resume()
        self.swaps.append(SwapResult(version=new, previous=old, ok=ok, pause_s=0.25))
        if ok:
            self.serving = new
        for listener in self.on_change:
            await listener(Change(version=new, state="live" if ok else "failed", previous=old))

    async def restart(self) -> None:
        """The engine ended and is back."""
        self.state = "restarting"
        await asyncio.sleep(0)
        self.restarts += 1
        self.state = "ready"
