"""The rules by which versions change their states, on any store.

Which version is live is one record, the pointer, and moving it is the moment at which a promotion or a roll-back
happens; the states of versions follow it (`_align`). A kill in between leaves states behind the pointer, and the next
promotion, be it of the same version again, sets them right. No rule needs two records to change at once, so that the
store needs no locks: whoever finds that another was quicker looks again, or says so.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import structlog

from rlhf_online.errors import FileDamaged, InvalidInput, UnknownVersion, VersionConflict
from rlhf_online.events import now_ms
from rlhf_online.versions import pins
from rlhf_online.versions.catalogue import REFERENCES, Catalogue, each, live_key, parse_status, probe_key, status_key
from rlhf_online.versions.manifest import Change, Kind, Manifest, ProbeSequence, State, Status, audience_of, kind_of
from rlhf_online.versions.store import VersionStore

REFUSED: tuple[State, ...] = ("rejected", "failed")


class Registry(Catalogue):
    """The versions in `store`. Safe for several processes at once.

    `actor` is who changes their states here ("trainer"); an operator is named with each change, as `by`.
    """

    def __init__(self, store: VersionStore, actor: str = "") -> None:
        super().__init__(store)
        self.actor = actor
        self._staged: dict[str, Path] = {}

    # New versions

    def reserve(self, kind: Kind) -> str:
        """A name that was never given before."""
        key = f"next/{kind}"
        while True:
            before = self.store.read(key)
            number = self._following(kind, before)
            if self.store.replace(key, str(number + 1), expected=before):
                return f"{kind}-{number:06d}"

    def stage(self, version: str) -> Path:
        """An empty folder to write the version's files into, before `publish`."""
        self._staged[version] = self.store.stage(version)
        return self._staged[version]

    def publish(self, manifest: Manifest) -> Manifest:
        """Make the staged folder of `manifest.version` a version, a candidate; fills in files and creation time.

        Publishing a version that is there already changes nothing, so that a restarted trainer may try again. Raises
        InvalidInput for one that was not staged.
        """
        version = manifest.version
        if not self.store.contains(version):
            if (staged := self._staged.get(version)) is None:
                raise InvalidInput(f"{version} cannot be published: its files were not staged here; stage it first")
            self.store.put(
                version,
                staged,
                lambda files: json.dumps(asdict(replace(manifest, files=files, created_ms=now_ms()))).encode(),
            )
        return self.manifest(version)

    def add_probe(self, version: str, probe: Sequence[ProbeSequence]) -> None:
        """Give a version a probe that was published without one, as earlier releases did with the first."""
        self._update(probe_key(version), lambda _: json.dumps([asdict(item) for item in probe]))

    # Which one is live

    def promote(
        self,
        version: str,
        *,
        reason: str = "",
        gate: dict[str, Any] | None = None,
        over: str | None = None,
        by: str = "",
    ) -> Change:
        """Make `version` the live one of its kind; the one before is retired. `over`: only if that one is live still.

        Promoting the live version again completes a promotion that a kill cut short. Raises UnknownVersion;
        InvalidInput for one that may not serve; VersionConflict if another was promoted or rolled back meanwhile.
        """
        kind = kind_of(version)
        if not self.has_weights(version):
            raise InvalidInput(f"{version} has no weights any more: only those of the newest versions are kept")
        status = self.status(version)
        if status.state in REFUSED:
            raise InvalidInput(f"{version} is {status.state} ({status.reason}) and cannot be promoted")
        pointer, previous = self.store.read(live_key(kind)), self.live(kind) or ""
        if over is not None and previous not in (over, version):
            raise VersionConflict(f"{version} was not promoted: {previous or 'none'} is live, and not {over} any more")
        if (pointer or "").strip() != version and not self.store.replace(live_key(kind), version, expected=pointer):
            raise VersionConflict(
                f"{version} was not promoted: {self.live(kind)} has taken the place of {previous or 'none'} meanwhile"
            )
        if previous != version or status.state != "live":
            # A canary may have been rejected meanwhile.
            self._set(version, self._status("live", reason, by, gate), unless=("failed",))
        self._align(kind, by)
        return Change(version=version, state="live", previous=previous, reason=reason, by=by or self.actor)

    def rollback(self, kind: Kind, *, reason: str, failed: str | None = None, by: str = "") -> Change:
        """Mark the live version failed and make the good one live again that was live most recently.

        With `failed`, nothing happens unless that version is still the live one (someone else was quicker).
        Raises InvalidInput if there is none to go back to. Before an audience's first version there is the common one:
        that is marked failed, and the change says so.
        """
        while True:
            pointer, live = self.store.read(live_key(kind)), self.live(kind) or ""
            if not live and failed is None:
                raise InvalidInput(f"no {kind} version is live: there is nothing to roll back")
            if failed not in (None, live):
                return Change(version=live, state="live", previous=live, reason=reason, by=by or self.actor)
            target = next((version for version in self._served(kind) if version != live), None)
            if target is None and audience_of(kind) and (failed or self.status(live).state not in REFUSED):
                return self.mark(live, "failed", reason=reason, by=by)
            if target is None:
                raise InvalidInput(f"{live} is the first version: there is none before it to go back to")
            failed = live
            self._set(live, self._status("failed", reason, by))
            if self.store.replace(live_key(kind), target, expected=pointer):
                break
        self._set(target, self._status("live", f"{live} was rolled back: {reason}", by), unless=REFUSED)
        self._align(kind, by)
        return Change(version=target, state="live", previous=live, reason=reason, by=by or self.actor)

    def mark(
        self,
        version: str,
        state: State,
        *,
        reason: str,
        gate: dict[str, Any] | None = None,
        unless: tuple[State, ...] = (),
        by: str = "",
    ) -> Change:
        """Set a version's state, "canary", "rejected" or "failed", for a reason, if it is in none of `unless`. Does not
        move the live pointer."""
        self._set(version, self._status(state, reason, by, gate), unless=unless)
        return Change(version=version, state=state, reason=reason, by=by or self.actor)

    # Reference and retention

    def refresh_reference(self, version: str) -> None:
        """From now on the KL of the policy is counted from `version`.

        Raises InvalidInput for one that never served or has no weights any more, UnknownVersion.
        """
        if kind_of(version) != "policy" or self.status(version).state not in ("live", "retired"):
            raise InvalidInput(f"{version} is no policy that serves or has served: only such can be the reference")
        if not self.has_weights(version):
            raise InvalidInput(f"{version} has no weights any more: only those of the newest versions are kept")

        def appended(value: str | None) -> str | None:
            known = self.references()
            return json.dumps(known if known[-1] == version else [*known, version])

        self._update(REFERENCES, appended)

    def prune(self, kind: Kind, keep: int) -> list[str]:
        """Delete the weights of all but the newest `keep` retired and `keep` refused versions; returns the names.

        The first version stays whole, and so do the live one, the reference that others are measured by, and those that
        are pinned.
        """
        try:
            pinned = pins.read(self.store)
        except FileDamaged as error:
            structlog.get_logger().error("no weights are discarded", why=str(error))
            return []
        kept = [*pinned, self.live(kind), *(self.references()[-1:] if kind == "policy" else [])]
        names = [name for name in self.versions(kind)[1:] if name not in kept]
        pruned = []
        for states in (("retired",), REFUSED):
            old = [name for name in names if self.status(name).state in states]
            for name in old[: max(0, len(old) - keep)]:
                if self.store.files(name):
                    self.store.discard_files(name)
                    pruned.append(name)
        return pruned

    # Records

    def _align(self, kind: Kind, by: str) -> None:
        """Let the states say what the pointer says, until it stayed the same meanwhile: whoever moved it last, and
        whoever was overtaken, leave one live version, and retire those that were live before it."""
        while True:
            live = self.live(kind)
            versions = self.versions(kind)
            for version, status in zip(versions, each(self.status, versions), strict=True):
                state = status.state
                if version == live and state != "live":
                    self._set(version, self._status("live", by=by), unless=("live", *REFUSED))
                elif version != live and state == "live":
                    retired = self._status("retired", f"replaced by {live}", by)
                    self._set(version, retired, unless=("retired", *REFUSED))
            if self.live(kind) == live:
                return

    def _status(self, state: State, reason: str = "", by: str = "", gate: dict[str, Any] | None = None) -> Status:
        return Status(state=state, reason=reason, by=by or self.actor, gate=gate or {}, changed_ms=now_ms())

    def _set(self, version: str, status: Status, *, unless: tuple[State, ...] = ()) -> None:
        """Set a version's state, unless it is in one of the states `unless`; it keeps the gate's figures either way.

        Raises UnknownVersion.
        """
        if not self.store.contains(version):
            raise UnknownVersion(f"no version {version!r}: `rlhf-online versions list` shows them")

        def changed(value: str | None) -> str | None:
            try:
                before = parse_status(value) if value is not None else Status(state="candidate")
            except (ValueError, TypeError):  # damaged: written anew
                before = Status(state="candidate")
            first_live_ms = before.first_live_ms or (before.changed_ms if before.state == "live" else 0)
            if status.state == "live":
                first_live_ms = first_live_ms or status.changed_ms
            after = replace(status, gate=status.gate or before.gate, first_live_ms=first_live_ms)
            if before.state in unless:
                after = replace(before, gate=before.gate or status.gate)
            return value if after == before else json.dumps(asdict(after))

        self._update(status_key(version), changed)

    def _following(self, kind: Kind, recorded: str | None) -> int:
        """The next number to give; if the record of it is lost or damaged, one that surely was never given.

        Then one is left out: that of a version which was given its name, and not put here yet.
        """
        given = [int(name.removeprefix(f"{kind}-")) for name in self.versions(kind)]
        highest = max(given, default=-1)
        if recorded is not None and recorded.strip().isdecimal():
            return max(int(recorded), highest + 1)
        return highest + 2 if given else 0

    def _update(self, key: str, change: Callable[[str | None], str | None]) -> str | None:
        """Replace a record by what `change` makes of it, again while others change it; what it was before."""
        while True:
            before = self.store.read(key)
            after = change(before)
            if after is None or after == before or self.store.replace(key, after, expected=before):
                return before
