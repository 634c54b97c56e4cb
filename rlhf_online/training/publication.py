"""Publishing and promoting versions in the registry, after the commit; each step may be repeated after a kill.

A reward version is published from the reward model in memory, which is the one that the commit holds. A policy version
that passed the gate is published from the policy in memory, likewise; a rejected one was staged before the commit, as
the policy then goes back to the live weights, and if a kill came in between it is never published.
"""

from typing import TYPE_CHECKING, Literal

import structlog

from rlhf_online.attribution import trained_on
from rlhf_online.attribution.trained_on import TrainedOn
from rlhf_online.canary import record as canary
from rlhf_online.errors import VersionConflict
from rlhf_online.keystore import owned
from rlhf_online.training.learners import Learners
from rlhf_online.training.progress import JudgedVersion, Progress
from rlhf_online.versions.manifest import Kind, Manifest, kind_of
from rlhf_online.versions.registry import REFUSED, Registry
from rlhf_online.versions.reports import Reports

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring


class Publisher:
    """Writes versions of the learners' models into `registry`, where the newest `keep` old ones keep their weights."""

    def __init__(
        self,
        registry: Registry,
        learners: Learners,
        reward_tuning: Literal["full", "lora"],
        keep: int,
        canary_steps: tuple[float, ...] = (),
        keys: "Keyring | None" = None,
    ) -> None:
        self._registry = registry
        self._learners = learners
        self.reports = Reports(registry.store)
        self._keys = keys
        self._keep = keep
        self._canary_steps = canary_steps
        self._reward_tuning: Literal["full", "lora"] = reward_tuning
        self._log = structlog.get_logger()

    def publish_reward(self, progress: Progress) -> bool:
        """Publish and promote the reward version of `progress`.

        False if that name cannot be used any more: the service refused it, or another version replaced it.
        """
        version = progress.reward_version
        parent = self._registry.live("reward") or ""
        if version not in self._registry.versions("reward"):
            self._learners.write_reward(self._registry.stage(version))
            self._record(version, progress.trained_on)
            self._registry.publish(
                Manifest(
                    version=version,
                    tuning=self._reward_tuning,
                    parent=parent,
                    position=dict(progress.position),
                    figures=dict(progress.figures),
                    traceparent=progress.traceparent,
                )
            )
        if self._registry.status(version).state in ("candidate", "live"):
            try:
                self._registry.promote(version, reason="learned from votes")
            except VersionConflict:
                return self.publish_reward(progress)
            self._registry.prune("reward", self._keep)
        return self._registry.status(version).state == "live"

    def _record(self, version: str, found: TrainedOn | None) -> None:
        """Before the version is there: no version has learned from what nobody can tell."""
        if found is not None:
            trained_on.write(self._registry.store, version, found)

    def stage_weights(self, judged: JudgedVersion) -> None:
        """Stage the files of a rejected version, while the policy in memory still has its weights."""
        self._learners.write_policy(self._registry.stage(judged.version))

    def publish_policy(self, judged: JudgedVersion, *, staged: bool) -> str:
        """Publish a committed version, then promote or reject it, or make it the canary; returns its state. Doing it
        again changes nothing.

        `staged`: the files of a rejected version are in place.
        """
        version, kind = judged.version, kind_of(judged.version)
        if version not in self._registry.versions(kind):
            if judged.passed:
                self._learners.write_policy(self._registry.stage(version))
            elif not staged:
                self._log.warning("rejected version was never published", version=version)
                return "rejected"
            self._record(version, judged.trained_on)
            self._registry.publish(judged.manifest())
        if judged.report:
            self.reports.write(version, owned.seal(judged.report, self._keys))
        state, live = self._registry.status(version).state, self._registry.live(kind) or ""
        if state not in ("candidate", "canary", "live"):
            return state
        if judged.passed and live == judged.replaces and self._tried(kind, live):
            canary.begin(self._registry, version, self._canary_steps, judged.figures)
            return self._registry.status(version).state
        # Live already: a kill may have cut its promotion short, and doing it again completes it.
        if judged.passed and live in (judged.replaces, version):
            try:
                self._registry.promote(version, gate=judged.figures, reason="passed the gate", over=judged.replaces)
            except VersionConflict:
                return self.publish_policy(judged, staged=staged)
            self._registry.prune(kind, self._keep)
            self._log.info("policy version live", version=version, kl=round(judged.kl, 3))
            return "live"
        if state == "live":
            return state
        return self._reject(judged, live)

    def _tried(self, kind: Kind, live: str) -> bool:
        """Whether a version of that kind is a canary first. An audience's first one is none: until then everybody's
        version answers it, which changes with each cycle, and what people say of that is not the audience's alone."""
        asked = self._canary_steps or canary.under_way(self._registry, kind)
        return bool(asked and live) and self._registry.status(live).state not in REFUSED

    def _reject(self, judged: JudgedVersion, live: str | None) -> str:
        version, reason = judged.version, "; ".join(judged.reasons)
        if judged.passed:
            reason = f"its parent {judged.parent} is not live any more, {live or 'none'} is"
        self._registry.mark(version, "rejected", reason=reason, gate=judged.figures)
        self._registry.prune(kind_of(version), self._keep)
        self._log.warning("policy version rejected", version=version, why=reason)
        return "rejected"
