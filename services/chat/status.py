"""The chat service's status file: what serves, and how the swaps went, for people and reports."""

import asyncio
from dataclasses import asdict
from typing import Any

from rlhf_online.engine.host import EngineHost
from rlhf_online.events import now_ms
from rlhf_online.state import StateDir
from rlhf_online.versions.manifest import Change


class StatusFile:
    """Written anew whenever a version begins to serve or is refused."""

    def __init__(self, host: EngineHost, state: StateDir) -> None:
        self.host = host
        self.state = state

    async def changed(self, change: Change) -> None:
        """The host calls this. A full disk must not stop a swap, so a failure to write is passed over."""
        try:
            await asyncio.to_thread(self.state.write_status, "chat", self.values())
        except OSError:
            pass

    def values(self) -> dict[str, Any]:
        return {
            "state": self.host.state,
            "serving": self.host.serving,
            "restarts": self.host.restarts,
            "swaps": [asdict(swap) for swap in self.host.swaps],
            "updated_ms": now_ms(),
        }
