"""What a version is, and how it fares."""

import re
from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from rlhf_online.errors import UnknownVersion, VersionUnfit

Kind = str
""" "policy", "reward", or "policy.NAME": the adapters of an audience (`rewards.audiences`), a line of their own."""
Tuning = Literal["full", "lora"]
State = Literal["candidate", "canary", "live", "retired", "rejected", "failed"]
"""candidate → canary, where there are canaries → live → retired; or rejected (by the gate, or as a canary), or failed
(in the engine, or rolled back)."""
AUDIENCE = re.compile(r"[a-z][a-z0-9_]{0,31}")
NAME = re.compile(rf"(policy|policy\.{AUDIENCE.pattern}|reward)-[0-9]{{6,12}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSequence:
    """A sequence and log p(token i+1 | tokens 0..i) at temperature 1: `len(logprobs) == len(token_ids) - 1`."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ProbeSequence":
        return cls(token_ids=tuple(values["token_ids"]), logprobs=tuple(values["logprobs"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFile:
    """`path` is relative to the version's folder, and stays in it. Raises ValueError for one that leaves it."""

    path: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        path = PurePosixPath(self.path)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"it names the file {self.path[:100]!r}, which is not in the version's folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a version is; `protos/rlhf/v1/versions.proto` defines the fields. It never changes."""

    version: str
    tuning: Tuning
    parent: str = ""
    files: tuple[VersionFile, ...] = ()
    probe: tuple[ProbeSequence, ...] = ()
    created_ms: int = 0
    reward_version: str = ""
    kl: float = 0.0
    position: dict[str, int] = field(default_factory=dict)
    reference: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    rules_version: str = ""
    traceparent: str = ""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Manifest":
        """Raises TypeError, KeyError or ValueError for values that are no manifest.

        A later release may say more, which is passed over. Raises VersionUnfit for a tuning that is not known here: a
        later release may well serve that.
        """
        values = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        values["files"] = tuple(
            VersionFile(path=item["path"], sha256=item["sha256"], size=item["size"]) for item in values["files"]
        )
        values["probe"] = tuple(map(ProbeSequence.from_json, values["probe"]))
        if values["tuning"] not in get_args(Tuning):
            raise VersionUnfit(
                f"{values['version']} is of tuning {values['tuning']!r}, which this release does not know: install a "
                "later one"
            )
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state of a version, why it has it, who gave it, since when, and the gate's figures.

    `by`: "trainer", "pod NAME", "reward service", "operator KEY", or "" where nobody noted it.
    `first_live_ms` is when it was live for the first time; 0 if it never was, or nobody noted it.
    """

    state: State
    reason: str = ""
    gate: dict[str, Any] = field(default_factory=dict)
    changed_ms: int = 0
    first_live_ms: int = 0
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A version entered a state, by whom and why; `previous` was live before, where that changed."""

    version: str
    state: State
    previous: str = ""
    reason: str = ""
    by: str = ""


def kind_of(version: str) -> Kind:
    """Raises UnknownVersion for a name that is neither a policy's nor a reward model's."""
    if (found := NAME.fullmatch(version)) is None:
        raise UnknownVersion(f"{version[:40]!r} is no version name: they look like policy-000012 or reward-000003")
    return found[1]


def audience_kind(audience: str) -> Kind:
    """Of the versions that answer for it."""
    return f"policy.{audience}"


def audience_of(kind: Kind) -> str:
    """ "" where the kind is no audience's."""
    return kind.partition(".")[2]
