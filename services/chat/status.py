"""The chat service's status file: what serves, how the swaps went, how the pod keeps up; for people and reports."""

import asyncio
from dataclasses import asdict
from typing import Any

from rlhf_online.engine.host import EngineHost
from rlhf_online.events import now_ms
from rlhf_online.state import StateDir
from rlhf_online.versions.manifest import Change

LOOK_S = 5.0


class StatusFile:
    """Written anew whenever a version begins to serve or is refused, and when something else has changed."""

    def __init__(self, host: EngineHost, state: StateDir) -> None:
        self.host = host
        self.state = state
        self._written: dict[str, Any] = {}

    async def changed(self, change: Change) -> None:
        """The host calls this. A full disk must not stop a swap, so a failure to write is passed over."""
        await self._write(self.values())

    async def keep(self) -> None:
        """Look every LOOK_S, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if (values := self.values()) != self._written:
                await self._write(values)

    def values(self) -> dict[str, Any]:
        pod = self.host.pod
        return {
            "state": self.host.state,
            "serving": self.host.serving,
            "restarts": self.host.restarts,
            "swaps": [asdict(swap) for swap in self.host.swaps],
            "pod": pod.name,
            "could_not": dict(pod.could_not),
            "behind": bool(pod.behind),
            "store_away": bool(pod.store.failure),
        }

    async def _write(self, values: dict[str, Any]) -> None:
        self._written = values
        try:
            await asyncio.to_thread(self.state.write_status, "chat", values | {"updated_ms": now_ms()})
        except OSError:
            pass
