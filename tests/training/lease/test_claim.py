"""A claim to a Lease object, second by second: no clock and no API server but the test's."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rlhf_online.training.lease import kubernetes
from rlhf_online.training.lease.kubernetes import Claim
from rlhf_online.training.lease.lease_object import LeaseObject

DURATION_S = 9.5
OTHER = {"holderIdentity": "another", "leaseDurationSeconds": 8, "renewTime": "then", "leaseTransitions": 4}


class Cluster:
    """The object, whose requests take a second each, and the clock that all see."""

    name, namespace = "trainer", "default"

    def __init__(self, spec: dict[str, Any] | None = None) -> None:
        self.now = 100.0
        self.spec = spec
        self.timeouts: list[float] = []
        self.written: list[dict[str, Any]] = []
        self.away = 0
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.now

    def read(self, timeout_s: float) -> dict[str, Any] | None:
        self.timeouts.append(timeout_s)
        if self.away:
            self.away -= 1
            raise OSError("away")
        return None if self.spec is None else {"metadata": {}, "spec": dict(self.spec)}

    def write(self, found: dict[str, Any] | None, spec: dict[str, Any], timeout_s: float) -> None:
        self.timeouts.append(timeout_s)
        self.now += self.seconds
        self.spec = dict(spec)
        self.written.append(self.spec)


class Waits(threading.Event):
    """Waiting takes no time but the cluster's; `meanwhile` happens in each wait, and the last wait ends it."""

    def __init__(self, cluster: Cluster, most: int = 99, meanwhile: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.asked: list[float] = []
        self.meanwhile = meanwhile
        self._cluster, self._most = cluster, most

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.asked.append(timeout)
        self._cluster.now += timeout
        self.meanwhile()
        return len(self.asked) >= self._most


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(kubernetes, "time", SimpleNamespace(monotonic=made.monotonic))
    return made


def _claim(cluster: Cluster, duration_s: float = DURATION_S) -> Claim:
    return Claim(cast(LeaseObject, cluster), duration_s)


def test_an_object_that_is_not_there_or_free_is_taken_at_once(cluster: Cluster) -> None:
    for found, transitions in ((None, 0), ({"holderIdentity": "", "leaseTransitions": 4}, 5), ({}, 1)):
        cluster.spec = found
        claim, waits = _claim(cluster), Waits(cluster)
        claim.acquire(waits)
        spec = cluster.written[-1]
        assert waits.asked == [] and spec["holderIdentity"] == claim.holder
        assert (spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (10, transitions), "whole seconds, not fewer"
        assert spec["acquireTime"] == spec["renewTime"]
    assert cluster.timeouts == pytest.approx([DURATION_S / 6] * 6)


def test_it_is_lost_when_its_duration_is_over_since_the_renewal_was_sent(cluster: Cluster) -> None:
    claim, cluster.seconds = _claim(cluster), 2.0
    assert claim.lost(), "before it was acquired"
    claim = _claim(cluster)
    claim.acquire(Waits(cluster))
    sent = cluster.now - 2.0
    cluster.now = sent + DURATION_S - 0.5
    assert claim.lost() == ""
    cluster.now = sent + DURATION_S
    assert claim.lost() == "it could not be renewed for 9.5 s"
    cluster.now = sent
    assert claim.lost(), "for good"


@pytest.mark.parametrize(("said", "waited"), [(8, 8), (None, 10), (0, 10)])
def test_another_holders_object_is_taken_once_it_has_not_changed_for_its_duration(
    cluster: Cluster, said: int | None, waited: int
) -> None:
    """What it says, or ours where it says nothing."""
    cluster.spec = OTHER | {"leaseDurationSeconds": said}
    claim, waits = _claim(cluster, 10.0), Waits(cluster)
    claim.acquire(waits)
    assert waits.asked == [1.0] * waited
    assert (cluster.written[0]["holderIdentity"], cluster.written[0]["leaseTransitions"]) == (claim.holder, 5)


def test_one_that_is_renewed_is_waited_for_anew(cluster: Cluster) -> None:
    cluster.spec = dict(OTHER)

    def renewed() -> None:
        if cluster.now == 105.0 and cluster.spec is not None:
            cluster.spec |= {"renewTime": "later"}

    claim, waits = _claim(cluster, 10.0), Waits(cluster, meanwhile=renewed)
    claim.acquire(waits)
    assert len(waits.asked) == 5 + 8


def test_it_is_renewed_every_third_and_sooner_after_a_failure(cluster: Cluster) -> None:
    claim = _claim(cluster, 30.0)
    claim.acquire(Waits(cluster))
    first, ended = cluster.written[0], Waits(cluster, most=6)

    def fails_twice() -> None:
        cluster.away = 1 if len(ended.asked) in (2, 3) else 0

    ended.meanwhile = fails_twice
    claim.renew(ended)
    assert ended.asked == pytest.approx([10.0, 10.0, 3.0, 3.0, 10.0, 10.0])
    assert len(cluster.written) == 1 + 3 and claim.lost() == ""
    assert cluster.written[-1]["acquireTime"] == first["acquireTime"] and cluster.written[-1]["leaseTransitions"] == 0


def test_whoever_holds_it_instead_is_named_and_is_not_renewed_over(cluster: Cluster) -> None:
    claim = _claim(cluster)
    claim.acquire(Waits(cluster))
    cluster.spec, ended = dict(OTHER), Waits(cluster)
    claim.renew(ended)
    assert claim.lost() == "another holds it" and len(ended.asked) == 2
    claim.release()
    assert cluster.spec == OTHER and len(cluster.written) == 1


def test_at_the_end_it_is_free_and_what_was_never_asked_for_is_left_alone(cluster: Cluster) -> None:
    claim = _claim(cluster)
    claim.release()
    assert cluster.timeouts == []
    claim.acquire(Waits(cluster))
    cluster.timeouts.clear()
    claim.release()
    assert cluster.timeouts == pytest.approx([DURATION_S / 6] * 2)
    assert cluster.spec is not None
    assert (cluster.spec["holderIdentity"], cluster.spec["leaseDurationSeconds"]) == ("", 1)
    cluster.away = 1
    claim.release()
