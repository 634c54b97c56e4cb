"""Where the trainer stands between two commits, in values that go into a checkpoint."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rlhf_online.attribution.trained_on import TrainedOn
from rlhf_online.eventlog.base import Position
from rlhf_online.versions.manifest import Manifest, ProbeSequence

Update = Literal["reward", "policy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedVersion:
    """A policy version and the gate's verdict on it: committed, then published and promoted, or rejected."""

    version: str
    tuning: Literal["full", "lora"]
    parent: str
    reward_version: str
    kl: float
    position: Position
    probe: tuple[ProbeSequence, ...]
    passed: bool
    reasons: tuple[str, ...]
    figures: dict[str, float]
    reference: str = ""
    weights: dict[str, float] = field(default_factory=dict)
    rules_version: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    """`gate.report`; empty where there was nothing to compare."""
    trained_on: TrainedOn | None = None
    """What its update learned from; None if an earlier release made it."""
    traceparent: str = ""
    """Of the cycle that made it."""
    over: str | None = None
    """Of an audience's: the live version of its kind as it was judged, "" for none. Otherwise that is the parent."""

    @property
    def replaces(self) -> str:
        """The version of its kind that was live as it was judged; "" for none."""
        return self.parent if self.over is None else self.over

    def manifest(self) -> Manifest:
        """What is published with the version's files."""
        return Manifest(
            version=self.version,
            tuning=self.tuning,
            parent=self.parent,
            probe=self.probe,
            reward_version=self.reward_version,
            kl=self.kl,
            position=dict(self.position),
            reference=self.reference,
            weights=dict(self.weights),
            rules_version=self.rules_version,
            traceparent=self.traceparent,
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "JudgedVersion":
        probe = tuple(map(ProbeSequence.from_json, values["probe"]))
        read = {"probe": probe, "reasons": tuple(values["reasons"]), "trained_on": _trained_on(values)}
        return cls(**{**values, **read})


@dataclass(slots=True, kw_only=True)
class Progress:
    """`next_update` is what comes next: the reward model learns from votes, or the policy from the reward model.

    `policy_version` is the version whose weights the policy in memory has; `reward_version` the last one committed, ""
    before the first; `position` the log position of the votes that it has learned from; `figures` what was measured of
    it on held-out votes, and as `trained_objectives` by how many objectives of a weight above 0 it has learned to order
    answers; `weights` what each objective counts in all scores of this cycle, and `rules` the text of the rules among
    these; `reference` the policy version that the KL counts from, the beginning of a line of versions.
    """

    log_identity: str
    policy_version: str
    reward_version: str = ""
    cycle: int = 0
    next_update: Update = "reward"
    updates_left: int = 0
    """Policy updates still to be made with the reward model that has learned."""
    position: Position = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    held_back: dict[str, float] = field(default_factory=dict)
    """The same of the held-back reward model; {} where there is none, or nothing was measured of it yet."""
    weights: dict[str, float] = field(default_factory=dict)
    rules: str = ""
    judged: JudgedVersion | None = None
    reference: str = ""
    audiences: dict[str, str] = field(default_factory=dict)
    """Those that have a part of the checkpoint, and the version whose weights that has."""
    audiences_left: list[str] = field(default_factory=list)
    """Those that are still to learn in the cycle that ended last."""
    judged_audience: JudgedVersion | None = None
    """The version of an audience that was judged last."""
    line: dict[str, Any] = field(default_factory=dict)
    """What the promoted versions since the reference have come to (`watch.line`)."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Answers that the policy did not learn from, by reason."""
    trained_on: TrainedOn | None = None
    """What the last update of the reward model learned from; None if an earlier release made it."""
    traceparent: str = ""
    """Of the cycle that began last."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Progress":
        judged = {name: values.get(name) for name in ("judged", "judged_audience")}
        read = {name: None if found is None else JudgedVersion.from_json(found) for name, found in judged.items()}
        read |= {"trained_on": _trained_on(values)}
        return cls(**{**values, **read})


def _trained_on(values: dict[str, Any]) -> TrainedOn | None:
    found = values.get("trained_on")
    return None if found is None else TrainedOn.from_json(found)
