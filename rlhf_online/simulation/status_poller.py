"""Polls the services' status files and the registry, for the view and the report."""

import asyncio
import json
from typing import Any

from rlhf_online.errors import RlhfError
from rlhf_online.simulation.report import VersionFacts, feedback_to_live, percentile
from rlhf_online.simulation.view import Dashboard, VersionRow
from rlhf_online.state import StateDir
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry

POLL_EVERY_S = 1.0
RECENT_ACKS = 400


class StatusPoller:
    """Copies what it reads to `dashboard`. Read-only; a file that is being replaced is read the next time."""

    def __init__(self, state: StateDir, registry: Registry, dashboard: Dashboard) -> None:
        self._state = state
        self._registry = registry
        self._dashboard = dashboard
        self._manifests: dict[str, Manifest] = {}
        self._chat: dict[str, Any] = {}
        self._trainer: dict[str, Any] = {}

    async def run(self) -> None:
        while True:
            await asyncio.to_thread(self.poll)
            await asyncio.sleep(POLL_EVERY_S)

    def poll(self) -> None:
        """Read everything once."""
        dashboard = self._dashboard
        try:
            self._chat, self._trainer = self._state.read_status("chat"), self._state.read_status("trainer")
            facts = self.facts()
        except (json.JSONDecodeError, OSError, RlhfError):
            return
        dashboard.versions = [
            VersionRow(version=item.version, state=item.state, kl=item.kl, win_rate=item.gate.get("win_rate"))
            for item in facts
        ]
        dashboard.serving = self._chat.get("serving", "")
        dashboard.trainer_phase = self._trainer.get("phase", "")
        dashboard.cycle = self._trainer.get("cycle", 0)
        dashboard.reward_accuracy = self._trainer.get("reward_accuracy")
        dashboard.trained = self._trainer.get("votes", {}).get("trained", 0)
        pauses = self.swap_pauses()
        dashboard.swaps, dashboard.swap_pause_s = len(pauses), percentile(pauses, 50)
        recent = list(dashboard.records.acks.values())[-RECENT_ACKS:]
        latencies = feedback_to_live(
            recent, {item.version: item.position for item in facts}, dict(dashboard.records.first_answer)
        )
        if latencies:
            dashboard.live_p50_s = percentile(latencies, 50)

    def facts(self) -> list[VersionFacts]:
        """Every policy version, oldest first."""
        found = []
        for version in self._registry.versions("policy"):
            if version not in self._manifests:
                self._manifests[version] = self._registry.manifest(version)
            manifest, status = self._manifests[version], self._registry.status(version)
            found.append(
                VersionFacts(
                    version=version,
                    state=status.state,
                    reason=status.reason,
                    kl=manifest.kl,
                    gate=status.gate,
                    position=manifest.position,
                )
            )
        return found

    def swap_pauses(self) -> list[float]:
        """Seconds that each swap under traffic paused the engine; the first version's loading is none."""
        return [swap["pause_s"] for swap in self._chat.get("swaps", ()) if swap["ok"] and swap["previous"]]

    def history(self) -> list[dict[str, Any]]:
        """The trainer's cycles, oldest first."""
        return self._trainer.get("history", [])

    def idle(self) -> bool:
        """True when the trainer waits for votes and what it made live is what serves."""
        self.poll()
        return self._trainer.get("phase") == "waiting" and self._chat.get("serving") == self._registry.live("policy")
