"""The trainer's status file, metrics and log lines. Nothing here decides anything."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog

from rlhf_online import tracing
from rlhf_online.events import now_ms
from rlhf_online.metrics import TrainerMetrics, show_version
from rlhf_online.state import StateDir
from rlhf_online.training.click_times import ClickTimes
from rlhf_online.training.reward_update import RewardReport
from rlhf_online.training.score_drift import ScoreDrift
from rlhf_online.training.traces import VoteTraces
from rlhf_online.versions.manifest import Kind
from rlhf_online.watch.monitors import Monitor, Reading

HISTORY = 200
STEP_S = 1.0
"""Seconds between two steps that the status shows."""


class Reporter:
    """Keeps the status file of `state` and the metrics current. The history goes on over restarts.
    Large because all that a trainer tells passes here."""

    def __init__(self, state: StateDir, metrics: TrainerMetrics) -> None:
        self.metrics = metrics
        self.traces = VoteTraces()
        self._state = state
        self._log = structlog.get_logger()
        before = state.read_status("trainer")
        self._values: dict[str, Any] = {
            "phase": "waiting",
            "paused": False,
            "waiting_for": "",
            "step": 0,
            "steps": 0,
            "cycle": 0,
            "policy_version": "",
            "reward_version": "",
            "kl": before.get("kl", 0.0),
            "reward_accuracy": before.get("reward_accuracy"),
            "votes": {},
            "canary": None,
            "audience_canaries": {},
            "history": before.get("history", []),
        }
        self.seconds: dict[str, float] = {}
        """Of each phase of the cycle so far."""
        self.clicks = ClickTimes(metrics.to_live)
        self.drift = ScoreDrift()
        self._orphaned: int | None = None
        self._alarms: set[Monitor] = set()
        self._readings: dict[str, dict[str, Any]] = state.read_status("watch").get("monitors", {})
        self._stepped = 0.0
        self.metrics.progress.set_to_current_time()

    @property
    def accuracy(self) -> float | None:
        """The reward model's on held-out votes, None while there is none."""
        return self._values["reward_accuracy"]

    def set(self, **values: Any) -> None:
        """Change values of the status; written at once if anything is new."""
        if any(self._values.get(name) != value for name, value in values.items()):
            self._values |= values
            self._write()

    def audience_canary(self, kind: Kind, told: dict[str, Any] | None) -> None:
        """What is counted of the canary of that kind, None once there is none."""
        others = {of: each for of, each in self._values["audience_canaries"].items() if of != kind}
        self.set(audience_canaries=others if told is None else {**others, kind: told})

    def paused(self, paused: bool) -> None:
        """Whether an operator has paused learning."""
        self.metrics.paused.set(paused)
        self.set(paused=paused)

    def versions(self, policy: str, reward: str) -> None:
        """The versions in memory."""
        show_version(self.metrics.serving, policy, reward)
        self.set(policy_version=policy, reward_version=reward)

    def votes(self, counts: Mapping[str, int]) -> None:
        """How many votes have which disposition, those pending included."""
        for disposition, count in counts.items():
            self.metrics.intake.votes.labels(disposition).set(count)
        orphaned = counts.get("orphaned", 0)
        self.metrics.intake.orphans.inc(max(0, orphaned - (orphaned if self._orphaned is None else self._orphaned)))
        self._orphaned = orphaned
        self.set(votes=dict(counts))

    def dead_letters(self, counts: Mapping[str, int]) -> None:
        """How many records cannot be used, by reason."""
        for reason, count in counts.items():
            self.metrics.intake.dead_letters.labels(reason).set(count)

    def left_out(self, counts: Mapping[str, int]) -> None:
        """How many answers the policy did not learn from, by reason."""
        for reason, count in counts.items():
            self.metrics.policy.left_out.labels(reason).set(count)

    def reward(self, report: RewardReport, weights: Mapping[str, float]) -> None:
        """The reward model's update and evaluation, and the weight of each objective from now on."""
        found = report.measured
        if found.accuracy_n or found.thumb_n:
            for name, value in found.figures().items():
                self.metrics.reward_model.held_out.labels(name).set(value)
        if found.accuracy_n:
            self.metrics.reward_model.accuracy.set(found.accuracy)
            self.set(reward_accuracy=found.accuracy)
        if report.passes:
            self.metrics.reward_model.loss.set(report.loss)
        for name, weight in weights.items():
            self.metrics.reward_model.weights.labels(name).set(weight)
        for signal, value in report.signal_reliability.items():
            self.metrics.reward_model.reliability.labels(signal).set(value)
        for name, count in report.standing.counts().items():
            self.metrics.reward_model.people.labels(name).set(count)
        for reason, count in report.skipped.items():
            self.metrics.reward_model.skipped.labels(reason).inc(count)
        self.metrics.reward_model.cut.inc(report.truncated)
        self._log.info(
            "reward model learned",
            votes=report.new,
            loss=round(report.loss, 4),
            passes=report.passes,
            accuracy=round(found.accuracy, 3),
            accuracy_low=round(found.accuracy_low, 3),
            accuracy_n=found.accuracy_n,
            thumb_auc=round(found.thumb_auc, 3),
            thumb_n=found.thumb_n,
            ece=round(found.ece, 3),
            truncated=report.truncated,
            skipped=report.skipped,
            weights=dict(weights),
        )

    def watch(self, monitor: Monitor, reading: Reading) -> None:
        """What a monitor says. The log says that it raised its alarm, and no more: a reading may name people."""
        self.metrics.watch.evidence.labels(monitor).set(reading.evidence)
        if reading.alarm and monitor not in self._alarms:
            self._log.warning("the watch raised an alarm", monitor=monitor)
        self._alarms = {*self._alarms - {monitor}, *([monitor] if reading.alarm else [])}
        self._readings[monitor] = reading.to_json()
        self._write_readings()

    def name_nobody(self) -> None:
        """Somebody has erased something: what monitors say of single people is gone until they say it anew."""
        if any(reading["rows"] for reading in self._readings.values()):
            self._readings = {monitor: {**reading, "rows": []} for monitor, reading in self._readings.items()}
            self._write_readings()

    def held_back(self, report: RewardReport) -> None:
        """The held-back reward model's update and evaluation."""
        found = report.measured
        if found.accuracy_n or found.thumb_n:
            for name, value in found.figures().items():
                self.metrics.reward_model.held_back.labels(name).set(value)
        self._log.info(
            "held-back reward model learned",
            votes=report.new,
            accuracy=round(found.accuracy, 3),
            accuracy_low=round(found.accuracy_low, 3),
            thumb_auc=round(found.thumb_auc, 3),
            ece=round(found.ece, 3),
        )

    def waiting(self, doing: str, error: Exception) -> None:
        """Something that the trainer needs is away."""
        self._log.warning("waiting", doing=doing, why=str(error))
        self.set(waiting_for=f"{doing}: {error}")

    def step(self, done: int, of: int) -> None:
        """An update has made so many steps of so many: shown at most once in STEP_S."""
        self.metrics.progress.set_to_current_time()
        if done and time.monotonic() - self._stepped < STEP_S:
            return
        self._stepped = time.monotonic()
        self.set(step=done, steps=of)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A phase of the cycle: shown while it lasts, timed when it ends."""
        self.set(phase=name, waiting_for="")
        began = time.monotonic()
        with tracing.span(name):
            yield
        self.metrics.progress.set_to_current_time()
        seconds = time.monotonic() - began
        self.metrics.phase.labels(name).observe(seconds)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 3)
        self.set(phase="waiting", waiting_for="", step=0, steps=0)

    def cycle(self, outcome: str, **facts: Any) -> None:
        """A cycle ended: "promoted", "rejected", "undone", "skipped", "paused", "cold", before the policy may learn;
        "canary" where a version became one, "waiting" while one is under way."""
        self.metrics.cycles.labels(outcome).inc()
        self.metrics.cycle_end.set_to_current_time()
        if outcome == "undone":
            self.metrics.policy.undone.inc()
        item = {"outcome": outcome, **facts, "seconds": self.seconds, "finished_ms": now_ms()}
        self.seconds = {}
        self.set(history=[*self._values["history"][-HISTORY + 1 :], item])
        shown = {name: value for name, value in facts.items() if isinstance(value, str | int | float)}
        self._log.info("cycle", outcome=outcome, **shown)
        self.traces.ended(outcome, facts.get("policy_version", ""))

    def _write_readings(self) -> None:
        self._write_status("watch", {"monitors": self._readings})

    def _write(self) -> None:
        self._write_status("trainer", self._values)

    def _write_status(self, name: str, values: dict[str, Any]) -> None:
        values["updated_ms"] = now_ms()
        try:
            self._state.write_status(name, values)
        except OSError as error:  # a full disk must not stop what the status is about
            self._log.warning("the status file cannot be written", why=str(error))
