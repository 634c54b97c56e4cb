"""Two trainers on Kubernetes: the second waits for the Lease object; the lower epoch commits nothing."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from rlhf_online.errors import ConfigError, Fenced, RlhfError
from rlhf_online.eventlog.gap import Place
from rlhf_online.training.checkpoint import CheckpointPart, Checkpoints
from rlhf_online.training.lease.kubernetes import KubernetesLease
from rlhf_online.training.lease.lease_object import LeaseObject
from rlhf_online.training.retrier import Stopped
from rlhf_online.versions import open_registry
from tests.support.lease_api import LeaseApi, certificate
from tests.support.waiting import until

WAIT_S = 60
HELD_S = 4.0
"""Duration of a lease that is to be held, on a busy machine too."""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[LeaseApi]:
    with LeaseApi(tmp_path / "api") as api:
        yield api


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines


class Trainer:
    """In a thread: takes the lease and holds it until it is asked to stop, or has an `error`."""

    def __init__(self, api: LeaseApi, folder: Path, duration_s: float) -> None:
        self.lease: KubernetesLease | None = None
        self.error: RlhfError | None = None
        self.stop = threading.Event()
        self._arguments = folder, api.target, duration_s, self.stop
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            with KubernetesLease.take(*self._arguments) as lease:
                self.lease = lease
                self.stop.wait()
        except RlhfError as error:
            self.error = error

    def held(self) -> KubernetesLease:
        """The lease, once it is taken."""
        until(lambda: self.lease or self.error, WAIT_S, "the lease")
        assert self.lease, self.error
        return self.lease

    def end(self) -> None:
        self.stop.set()
        self.thread.join()


@contextmanager
def trainer(api: LeaseApi, folder: Path, duration_s: float = HELD_S) -> Iterator[Trainer]:
    one = Trainer(api, folder / "checkpoints", duration_s)
    try:
        yield one
    finally:
        one.end()


def fenced(lease: KubernetesLease) -> bool:
    try:
        lease.check()
    except Fenced:
        return True
    return False


def waits(logs: list[Any], holder: str) -> Callable[[], bool]:
    return lambda: any("waiting" in line["event"] and line["holder"] == holder for line in logs)


def renewed(api: LeaseApi, times: int) -> None:
    until_then = len(api.specs) + times
    until(lambda: len(api.specs) >= until_then, WAIT_S, "renewals")


def save(folder: Path, lease: KubernetesLease, number: int) -> None:
    part = CheckpointPart({}, {"n": number})
    Checkpoints(folder / "checkpoints", 2, lease).save(
        {"n": number}, {"intake": part}, {}, Place("a log", {"local": number})
    )


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# Taking it


def test_the_first_creates_the_object_and_renews_it(api: LeaseApi, tmp_path: Path) -> None:
    with trainer(api, tmp_path, 2.5) as first:
        lease = first.held()
        assert lease.epoch == 1
        renewed(api, 2)
        lease.check()
        with lease.guard():
            pass
    *held, last = api.specs
    assert len({spec["renewTime"] for spec in held}) == len(held) >= 3
    assert {spec["acquireTime"] for spec in held} == {held[0]["renewTime"]}
    for spec in held:
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == (lease.claim.holder, 0)
        assert spec["leaseDurationSeconds"] == 3, "whole seconds, and not fewer"
    assert last["holderIdentity"] == ""


def test_the_second_waits_and_takes_over_when_the_first_renews_no_more(
    api: LeaseApi, tmp_path: Path, logs: list[Any]
) -> None:
    with trainer(api, tmp_path) as one:
        first = one.held()
        save(tmp_path, first, 1)
        registry = open_registry(tmp_path / "versions", first.guard)
        with trainer(api, tmp_path) as two:
            until(waits(logs, first.claim.holder), WAIT_S, "the second one to wait")
            renewed(api, 4)  # for longer than the lease lasts
            first.check()
            assert two.lease is None
            api.deaf_to = first.claim.holder
            second = two.held()
            assert (second.epoch, api.spec["leaseTransitions"]) == (2, 1)
            before = content(tmp_path)
            for forbidden in (
                first.check,
                lambda: first.guard().__enter__(),
                lambda: save(tmp_path, first, 2),
                lambda: registry.reserve("policy"),
            ):
                with pytest.raises(Fenced):
                    forbidden()
            assert content(tmp_path) == before
            second.check()
            save(tmp_path, second, 2)
            one.end()
            second.check()


def test_a_clean_end_lets_the_waiting_one_in(api: LeaseApi, tmp_path: Path, logs: list[Any]) -> None:
    with trainer(api, tmp_path, 20) as one:
        first = one.held().claim.holder
        with trainer(api, tmp_path, 20) as two:
            until(waits(logs, first), WAIT_S, "the second one to wait")
            one.end()
            second = two.held()
            assert second.epoch == 2
            holders = [holder for holder, _ in groupby(spec["holderIdentity"] for spec in api.specs)]
            assert holders == [first, "", second.claim.holder]
    with trainer(api, tmp_path, 3600) as three:
        assert three.held().epoch == 3


def test_one_that_waits_ends_when_asked(api: LeaseApi, tmp_path: Path, logs: list[Any]) -> None:
    api.put({"holderIdentity": "somebody", "leaseDurationSeconds": 3600})
    with trainer(api, tmp_path, 3600) as waiting:
        until(waits(logs, "somebody"), WAIT_S, "it to wait")
        waiting.end()
        assert isinstance(waiting.error, Stopped)
    assert len(api.specs) == 1
    assert not (tmp_path / "checkpoints").exists(), "no epoch without the object"


@pytest.mark.parametrize("there", [False, True], ids=["POST", "PUT"])
def test_of_two_that_take_it_at_the_same_time_one_wins(
    api: LeaseApi, tmp_path: Path, logs: list[Any], there: bool
) -> None:
    if there:
        api.put({"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 6})
    api.together = threading.Barrier(2, action=lambda: setattr(api, "together", None))
    with trainer(api, tmp_path, 20) as one, trainer(api, tmp_path, 20) as two:
        until(lambda: one.lease or two.lease, WAIT_S, "a winner")
        until(waits(logs, api.spec["holderIdentity"]), WAIT_S, "the other one to wait")
        winner = one.lease or two.lease
        assert winner and (one.lease is None or two.lease is None)
        assert any(" 409 " in line.get("why", "") for line in logs)
        assert (winner.epoch, api.spec["holderIdentity"]) == (1, winner.claim.holder)
        assert api.spec["leaseTransitions"] == (7 if there else 0)
        winner.check()
        (two if one.lease else one).end()


# Losing it


@pytest.mark.parametrize("failure", ["status", "hang", "lose"])
def test_an_api_that_is_away_for_less_than_the_duration_is_survived(
    api: LeaseApi, tmp_path: Path, logs: list[Any], failure: str
) -> None:
    with trainer(api, tmp_path, 6) as one:
        lease = one.held()
        setattr(api, failure, 500 if failure == "status" else 1)
        until(lambda: any("not renewed" in line["event"] for line in logs), WAIT_S, "a failed renewal")
        setattr(api, failure, 0)
        renewed(api, 2)
        lease.check()
        assert api.spec["holderIdentity"] == lease.claim.holder
        assert "first-token" not in str(logs)


@pytest.mark.parametrize("failure", ["status", "hang"])
def test_one_that_is_away_for_longer_costs_the_lease_for_good(api: LeaseApi, tmp_path: Path, failure: str) -> None:
    with trainer(api, tmp_path, 0.6) as one:
        lease = one.held()
        setattr(api, failure, 503)
        until(lambda: fenced(lease), WAIT_S, "the end of the lease")
        setattr(api, failure, 0)
        with pytest.raises(Fenced, match=r"epoch 1, holds .* no more: it could not be renewed for 0\.6 s"):
            save(tmp_path, lease, 1)
        one.end()
        assert fenced(lease)
    assert not list(tmp_path.glob("checkpoints/*/"))


def test_another_holder_in_the_object_ends_it(api: LeaseApi, tmp_path: Path) -> None:
    with trainer(api, tmp_path) as one:
        lease = one.held()
        api.put({"holderIdentity": "pod-b", "leaseDurationSeconds": 3600})
        until(lambda: fenced(lease), WAIT_S, "the end of the lease")
        with pytest.raises(Fenced, match="no more: pod-b holds it"), lease.guard():
            pytest.fail("it was replaced")
        one.end()
    assert api.spec["holderIdentity"] == "pod-b", "what is another's is not given up"


def test_the_epoch_decides_where_the_object_does_not(api: LeaseApi, tmp_path: Path) -> None:
    with trainer(api, tmp_path, 3600) as one:
        lease = one.held()
        with LeaseApi(tmp_path / "other") as other, trainer(other, tmp_path, 3600) as two:
            assert two.held().epoch == 2
            with pytest.raises(Fenced, match=r"holds epoch 1 .* epoch 2 was taken"), lease.guard():
                pytest.fail("it was replaced")
            with pytest.raises(Fenced, match="epoch 2 was taken"):
                lease.check()


# Who we are


def test_a_token_that_was_replaced_is_used(api: LeaseApi, tmp_path: Path) -> None:
    with trainer(api, tmp_path) as one:
        lease = one.held()
        api.token = "second-token"
        (api.account / "token").write_text("second-token\n")
        renewed(api, 2)
        lease.check()


@pytest.mark.parametrize("status", [401, 403])
def test_one_that_may_not_have_it_is_told_what_it_needs(
    api: LeaseApi, tmp_path: Path, logs: list[Any], status: int
) -> None:
    api.status = status
    with (
        pytest.raises(ConfigError, match=f"{status} to GET.*no, Bearer ….*get, create and update leases") as raised,
        KubernetesLease.take(tmp_path, api.target, 3600, threading.Event()),
    ):
        pytest.fail("it may not")
    assert "first-token" not in f"{raised.value!r} {raised.getrepr()} {logs}"


@pytest.mark.parametrize("token", ["sec ret", "sec\nret", "secret\x00", "secrét"])
def test_a_damaged_token_is_named_by_its_file_alone(api: LeaseApi, token: str) -> None:
    (api.account / "token").write_text(token)
    with pytest.raises(ConfigError, match=r"account/token holds no token") as raised:
        api.target.read(WAIT_S)
    assert "sec" not in str(raised.value)
    assert api.requests == 0


def test_the_token_goes_to_the_clusters_own_server_alone(api: LeaseApi, tmp_path: Path, logs: list[Any]) -> None:
    certificate(tmp_path / "another")
    (api.account / "ca.crt").write_bytes((tmp_path / "another" / "ca.crt").read_bytes())
    with trainer(api, tmp_path, 3) as one:
        until(lambda: len(logs) > 1, WAIT_S, "two attempts")
        assert one.lease is None
    assert all("certificate verify failed" in line["why"] for line in logs)
    assert api.requests == 0


def test_the_object_is_looked_for_where_the_pod_is(api: LeaseApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    assert LeaseObject.of_pod("rlhf-trainer", api.account) == api.target
    assert api.target.read(WAIT_S) is None


@pytest.mark.parametrize(
    "missing", ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "token", "ca.crt", "namespace"]
)
def test_outside_of_a_pod_what_is_missing_is_named(
    api: LeaseApi, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    if missing.startswith("K"):
        monkeypatch.delenv(missing)
    else:
        (api.account / missing).unlink()
    with pytest.raises(ConfigError, match=rf"is for a pod: .*{missing} "):
        LeaseObject.of_pod("rlhf-trainer", api.account)
