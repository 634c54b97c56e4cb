"""The lease on Kubernetes: a Lease object keeps the second trainer waiting, the fence in the folder does the rest.

    pod                                   API server
    GET lease ──────────────────────────► 404: POST it; free, or unchanged for its duration: PUT it; else wait
    every third of the duration: PUT ───► a new renewTime; 409 where somebody else was faster
    at a clean end: PUT ────────────────► holderIdentity "": the successor need not wait

Clocks of two machines are never compared: a holder counts as gone when its record has not changed for its duration by
our own monotonic clock, and gives itself up when so much has gone by since it *sent* the last renewal that succeeded. A
holder that stands still cannot do that in time; so whoever has won the object takes the next epoch in the checkpoints'
folder (`lease.Fence`), and it is the epoch that makes the lower one unable to commit.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import structlog

from rlhf_online.errors import ConfigError, Fenced
from rlhf_online.training.lease.file import Fence, new_holder
from rlhf_online.training.lease.lease_object import LeaseObject
from rlhf_online.training.retrier import Stopped

RENEW, RETRY, REQUEST = 1 / 3, 1 / 10, 1 / 6
"""Time between renewals, time between attempts, and time-out of a request, as shares of the lease's duration."""


class Claim:
    """Who holds the object: we do from `acquire` until `lost` says why no more, which is final."""

    def __init__(self, target: LeaseObject, duration_s: float) -> None:
        self.holder = new_holder()
        self._target = target
        self._duration_s = duration_s
        self._requested = False
        self._until = 0.0
        self._lost = ""
        self._observed: dict[str, Any] = {}
        self._observed_at = 0.0
        self._log = structlog.get_logger().bind(lease=target.name, namespace=target.namespace)

    def acquire(self, stop: threading.Event) -> None:
        """Wait until the object is ours. Raises Stopped once `stop` is set, ConfigError if we may not have it."""
        reported = ""
        while not stop.is_set():
            try:
                other = self._acquire_or_renew()
                if not other:
                    return
                if other != reported:
                    self._log.info("another trainer holds the lease, waiting for it to end", holder=other)
                reported = other
            except OSError as error:
                self._log.warning("the lease cannot be taken now, trying again", why=str(error))
            stop.wait(self._duration_s * RETRY)
        raise Stopped("stopped before it had the lease")

    def renew(self, ended: threading.Event) -> None:
        """Keep the object ours until `ended`, or until it is lost."""
        wait = RENEW
        while not ended.wait(self._duration_s * wait) and not self.lost():
            try:
                other = self._acquire_or_renew()
                self._lost = f"{other} holds it" if other else self._lost
                wait = RENEW
            except (OSError, ConfigError) as error:
                self._log.warning("the lease is not renewed, trying again", why=str(error))
                wait = RETRY

    def lost(self) -> str:
        """Why the object is no longer ours, "" while it is."""
        if not self._lost and time.monotonic() >= self._until:
            self._lost = f"it could not be renewed for {self._duration_s:g} s"
        return self._lost

    def release(self) -> None:
        """Let a successor have the object at once; where that fails, it waits until the lease expires."""
        if not self._requested:
            return
        try:
            found = self._target.read(self._duration_s * REQUEST)
            if found and found["spec"].get("holderIdentity") == self.holder:
                free = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                self._target.write(found, found["spec"] | free, self._duration_s * REQUEST)
        except (OSError, ConfigError) as error:
            self._log.warning("the lease was not given up", why=str(error))

    def _acquire_or_renew(self) -> str:
        """Take or renew the object; who has it instead, "" if we do. Raises OSError, ConfigError."""
        timeout_s = self._duration_s * REQUEST
        found = self._target.read(timeout_s)
        spec = (found or {}).get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self.holder) and not self._stale(spec):
            return holder
        now = _now()
        # Whole seconds, and not fewer: others wait at least as long as this one lets itself go on.
        new = {"holderIdentity": self.holder, "leaseDurationSeconds": math.ceil(self._duration_s), "renewTime": now}
        if holder != self.holder:
            new |= {"acquireTime": now, "leaseTransitions": (spec.get("leaseTransitions") or 0) + bool(found)}
        self._requested, sent = True, time.monotonic()
        self._target.write(found, spec | new, timeout_s)
        self._until = sent + self._duration_s
        return ""

    def _stale(self, spec: dict[str, Any]) -> bool:
        now = time.monotonic()
        if spec != self._observed:
            self._observed, self._observed_at = spec, now
        return now - self._observed_at >= (spec.get("leaseDurationSeconds") or self._duration_s)


@dataclass(frozen=True, slots=True)
class KubernetesLease:
    """See `lease.Lease`."""

    claim: Claim
    fence: Fence

    @classmethod
    @contextmanager
    def take(cls, folder: Path, target: LeaseObject, duration_s: float, stop: threading.Event) -> Iterator[Self]:
        """Hold `target`, and an epoch in `folder`, while the block runs; waits as long as another trainer does.

        Raises Stopped once `stop` is set meanwhile, ConfigError, CheckpointError.
        """
        claim, ended = Claim(target, duration_s), threading.Event()
        thread = threading.Thread(target=claim.renew, args=(ended,), name="lease", daemon=True)
        try:
            claim.acquire(stop)
            thread.start()
            yield cls(claim, Fence.begin(folder, claim.holder))
        finally:
            ended.set()
            if thread.ident is not None:
                thread.join(duration_s)
            claim.release()

    @property
    def epoch(self) -> int:
        return self.fence.epoch

    def check(self) -> None:
        """Raises Fenced unless the object is held, and the epoch is the last one."""
        self._held()
        self.fence.check()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """See `lease.Lease`."""
        with self.fence.guard():
            self._held()
            yield

    def _held(self) -> None:
        if why := self.claim.lost():
            raise Fenced(
                f"this trainer, epoch {self.epoch}, holds the lease object no more: {why}. It writes nothing from now "
                "on; started again, it waits for its turn"
            )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
