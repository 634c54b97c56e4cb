"""Immutable versions on disk, their states, and which one is live.

    versions/
      policy-000012/       manifest.json and the files that it names with SHA-256 and size
      reward-000003/
      states/policy-000012.json    {"state", "reason", "gate", "changed_ms"}
      live/policy          the name of the live version, replaced atomically
      references           the policy versions that KL was counted from, the one of today last; none: the first version
      next/policy          the next number to give: a number is never given twice
      lock                 held while any of the above changes

A version is staged in a hidden folder beside its place, made durable, and renamed: it is there wholly or not at all.
States: candidate → live → retired, or rejected (by the gate), or failed (in the engine, or rolled back).
`prune` deletes the weights of old versions; what they were, and how they fared, stays.
"""

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlhf_online import locks
from rlhf_online.errors import InvalidInput, UnknownVersion, VersionCorrupt
from rlhf_online.state import fsync_dir, fsync_file, write_bytes, write_json

Kind = Literal["policy", "reward"]
State = Literal["candidate", "live", "retired", "rejected", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSequence:
    """A sequence and log p(token i+1 | tokens 0..i) at temperature 1: `len(logprobs) == len(token_ids) - 1`."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFile:
    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a version is; `protos/rlhf/v1/versions.proto` defines the fields."""

    version: str
    tuning: Literal["full", "lora"]
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

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Manifest":
        """Raises TypeError or KeyError for values that are no manifest."""
        values = dict(values)
        values["files"] = tuple(VersionFile(**item) for item in values["files"])
        values["probe"] = tuple(
            ProbeSequence(token_ids=tuple(item["token_ids"]), logprobs=tuple(item["logprobs"]))
            for item in values["probe"]
        )
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    state: State
    reason: str = ""
    gate: dict[str, Any] = field(default_factory=dict)
    changed_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A version entered a state; `previous` is the version that was live before, where that changed."""

    version: str
    state: State
    previous: str = ""
    reason: str = ""


class Registry:
    """The versions below `root`. Safe for several processes at once; readers need no lock.

    Every change is made within `guard()`, which may raise to forbid it: the trainer's lease does (`training.lease`).
    """

    def __init__(self, root: Path, guard: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self.root = root
        self._guard = guard
        self._own = uuid.uuid4().hex[:8]  # what this one stages, no other writes into

    # Reading

    def live(self, kind: Kind) -> str | None:
        """Name of the live version, None before the first."""
        try:
            return (self.root / "live" / kind).read_text().strip()
        except FileNotFoundError:
            return None

    def versions(self, kind: Kind | None = None) -> list[str]:
        """Names, oldest first; policies before rewards."""
        if not self.root.is_dir():
            return []
        kinds = (kind,) if kind else ("policy", "reward")
        names = {path.name for path in self.root.iterdir() if (path / "manifest.json").is_file()}
        return [name for k in kinds for name in sorted(n for n in names if n.startswith(f"{k}-"))]

    def path(self, version: str) -> Path:
        """The version's folder. Raises UnknownVersion."""
        path = self.root / version
        if "/" in version or version.startswith(".") or not (path / "manifest.json").is_file():
            raise UnknownVersion(f"no version {version!r}: `rlhf-online versions list` shows them")
        return path

    def manifest(self, version: str) -> Manifest:
        """Raises UnknownVersion, or VersionCorrupt if the manifest cannot be read."""
        path = self.path(version) / "manifest.json"
        try:
            return Manifest.from_json(json.loads(path.read_text()))
        except (ValueError, TypeError, KeyError) as error:
            raise VersionCorrupt(f"{version}: its manifest cannot be read ({error})") from error

    def status(self, version: str) -> Status:
        """Raises UnknownVersion."""
        self.path(version)
        try:
            return Status(**json.loads((self.root / "states" / f"{version}.json").read_text()))
        except FileNotFoundError:
            return Status(state="candidate")

    def has_weights(self, version: str) -> bool:
        """Whether every file of the version is there; `prune` deletes them. Raises UnknownVersion or VersionCorrupt."""
        return all((self.path(version) / item.path).is_file() for item in self.manifest(version).files)

    def references(self) -> list[str]:
        """The policy versions that the KL was counted from, each the beginning of a line, that of today last."""
        try:
            return json.loads((self.root / "references").read_text())
        except FileNotFoundError:
            return self.versions("policy")[:1]

    def fallbacks(self, kind: Kind) -> list[str]:
        """The versions that one can go back to, the one that was live most recently last."""

        def usable(version: str) -> bool:
            try:
                return self.status(version).state == "retired" and self.has_weights(version)
            except VersionCorrupt:
                return False

        return sorted(filter(usable, self.versions(kind)), key=lambda name: (self.status(name).changed_ms, name))

    def verify(self, version: str) -> Manifest:
        """The manifest, after comparing every file with it. Raises UnknownVersion or VersionCorrupt."""
        manifest = self.manifest(version)
        folder = self.path(version)
        if manifest.version != version:
            raise VersionCorrupt(f"{version}: its manifest names {manifest.version!r}")
        for item in manifest.files:
            path = folder / item.path
            if not path.is_file() or path.stat().st_size != item.size:
                raise VersionCorrupt(f"{version}: {item.path} is missing or not {item.size} bytes long")
            if sha256(path) != item.sha256:
                raise VersionCorrupt(f"{version}: {item.path} does not have the SHA-256 of the manifest")
        return manifest

    # Writing

    def reserve(self, kind: Kind) -> str:
        """A name that was never given before."""
        with self._locked():
            counter = self.root / "next" / kind
            number = int(json.loads(counter.read_text())) if counter.is_file() else 0
            write_json(counter, number + 1)
        return f"{kind}-{number:06d}"

    def stage(self, version: str) -> Path:
        """An empty folder to write the version's files into, before `publish`."""
        folder = self._staging(version)
        with self._guard():
            for old in self.root.glob(f".staging-{version}-*"):
                shutil.rmtree(old, ignore_errors=True)
            folder.mkdir(parents=True)
        return folder

    def publish(self, manifest: Manifest) -> Manifest:
        """Make the staged folder of `manifest.version` a version, a candidate; fills in files and creation time.

        Publishing a version that is there already changes nothing, so that a restarted trainer may try again.
        """
        version = manifest.version
        staged, place = self._staging(version), self.root / version
        if (place / "manifest.json").is_file():
            return self.manifest(version)
        paths = sorted(path for path in staged.rglob("*") if path.is_file())
        files = tuple(
            VersionFile(path=str(path.relative_to(staged)), sha256=sha256(path), size=path.stat().st_size)
            for path in paths
        )
        values = asdict(manifest) | {"files": [asdict(item) for item in files], "created_ms": now_ms()}
        for path in paths:
            fsync_file(path)
        write_json(staged / "manifest.json", values)
        with self._guard():
            staged.rename(place)
            fsync_dir(self.root)
        return self.manifest(version)

    def promote(self, version: str, *, reason: str = "", gate: dict[str, Any] | None = None) -> Change:
        """Make `version` the live one of its kind; the one before is retired. Raises UnknownVersion, InvalidInput.

        Promoting the live version again completes a promotion that a kill cut short.
        """
        kind = kind_of(version)
        if not self.has_weights(version):
            raise InvalidInput(f"{version} has no weights any more: only those of the newest versions are kept")
        with self._locked():
            status, previous = self.status(version), self.live(kind)
            if status.state in ("rejected", "failed"):
                raise InvalidInput(f"{version} is {status.state} ({status.reason}) and cannot be promoted")
            if previous != version or status.state != "live":
                self._point(kind, version)
                self._set(version, Status(state="live", reason=reason, gate=gate or status.gate, changed_ms=now_ms()))
            for other in self.versions(kind):
                if other != version and self.status(other).state == "live":
                    self._set(other, _with_state(self.status(other), "retired", f"replaced by {version}"))
        return Change(version=version, state="live", previous=previous or "", reason=reason)

    def mark(self, version: str, state: State, *, reason: str, gate: dict[str, Any] | None = None) -> Change:
        """Set a version's state, "rejected" or "failed", for a reason. Does not move the live pointer."""
        with self._locked():
            status = Status(state=state, reason=reason, gate=gate or self.status(version).gate, changed_ms=now_ms())
            self._set(version, status)
        return Change(version=version, state=state, reason=reason)

    def rollback(self, kind: Kind, *, reason: str, failed: str | None = None) -> Change:
        """Mark the live version failed and make the good one live again that was live most recently.

        With `failed`, nothing happens unless that version is still the live one (someone else was quicker).
        Raises InvalidInput if there is none to go back to.
        """
        with self._locked():
            live = self.live(kind)
            if live is None or (failed is not None and failed != live):
                return Change(version=live or "", state="live", previous=live or "", reason=reason)
            good = self.fallbacks(kind)
            if not good:
                raise InvalidInput(f"{live} is the first version: there is none before it to go back to")
            target = good[-1]
            self._set(live, _with_state(self.status(live), "failed", reason))
            self._point(kind, target)
            self._set(target, _with_state(self.status(target), "live", f"{live} was rolled back: {reason}"))
        return Change(version=target, state="live", previous=live, reason=reason)

    def refresh_reference(self, version: str) -> None:
        """Begin a new line: from now on the KL of the policy is counted from `version`. Raises InvalidInput for one
        that never served or has no weights any more, UnknownVersion."""
        if kind_of(version) != "policy" or self.status(version).state not in ("live", "retired"):
            raise InvalidInput(f"{version} is no policy that serves or has served: only such can be the reference")
        if not self.has_weights(version):
            raise InvalidInput(f"{version} has no weights any more: only those of the newest versions are kept")
        with self._locked():
            if (known := self.references())[-1] != version:
                write_json(self.root / "references", [*known, version])

    def prune(self, kind: Kind, keep: int) -> list[str]:
        """Delete the weights of all but the newest `keep` retired and `keep` refused versions; returns the names.

        The first version stays whole, and so do the live one and the reference that others are measured by.
        """
        pruned = []
        with self._locked():
            kept = self.references()[-1:] if kind == "policy" else []
            names = [name for name in self.versions(kind)[1:] if name not in kept]
            for states in (("retired",), ("rejected", "failed")):
                old = [name for name in names if self.status(name).state in states][:-keep]
                pruned += [name for name in old if self._delete_weights(name)]
        return pruned

    def _delete_weights(self, version: str) -> bool:
        try:
            paths = [self.root / version / item.path for item in self.manifest(version).files]
        except VersionCorrupt:
            return False
        there = [path for path in paths if path.is_file()]
        for path in there:
            path.unlink()
        return bool(there)

    def _staging(self, version: str) -> Path:
        return self.root / f".staging-{version}-{self._own}"

    def _point(self, kind: Kind, version: str) -> None:
        pointer = self.root / "live" / kind
        write_bytes(pointer, version.encode())

    def _set(self, version: str, status: Status) -> None:
        write_json(self.root / "states" / f"{version}.json", asdict(status))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with self._guard(), locks.acquire(self.root / "lock"):
            yield


def kind_of(version: str) -> Kind:
    """Raises UnknownVersion for a name that is neither a policy's nor a reward model's."""
    if version.startswith("policy-"):
        return "policy"
    if version.startswith("reward-"):
        return "reward"
    raise UnknownVersion(f"{version!r} is no version name: they look like policy-000012 or reward-000003")


def genesis(registry: Registry, model: Path, *, tuning: Literal["full", "lora"]) -> str:
    """Make the first policy version from the base model's folder if there is no live one; returns the live name.

    `full` links or copies the model's files; `lora` holds no file: it stands for the base model without an adapter.
    """
    if (live := registry.live("policy")) is not None:
        return live
    if tuning == "full" and not any(model.glob("*.safetensors")):
        raise InvalidInput(f"{model} holds no *.safetensors: convert the model's weights first")
    version = registry.reserve("policy")
    staged = registry.stage(version)
    if tuning == "full":
        for path in sorted(model.iterdir()):
            if path.suffix in (".json", ".safetensors", ".jinja", ".txt", ".model"):
                shutil.copyfile(path, staged / path.name)
    registry.publish(Manifest(version=version, tuning=tuning))
    registry.promote(version, reason="the base model")
    return version


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _with_state(status: Status, state: State, reason: str) -> Status:
    return Status(state=state, reason=reason, gate=status.gate, changed_ms=now_ms())
