"""A lease that nobody renews any more is named; one that somebody holds is no fault."""

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlhf_online.doctor import lease
from rlhf_online.training.lease import FileLease
from rlhf_online.training.lease.kubernetes import RENEW, Claim
from tests.support.lease_api import NAME, LeaseApi
from tests.support.waiting import until


def test_a_lease_of_a_pod_that_is_gone_is_named_with_its_holder(tmp_path: Path) -> None:
    with LeaseApi(tmp_path) as api:
        assert lease.kubernetes(api.target).what == "nobody holds it"
        dead = Claim(api.target, duration_s=1.0)
        dead.acquire(threading.Event())  # and never renews it
        api.put(api.spec | {"renewTime": "2026-01-01T00:00:00.000000Z"})
        found = lease.kubernetes(api.target)
        assert found.severity == "refuse"
        assert found.what.startswith(f"is held by {dead.holder}, who has not renewed it for ")
        assert f"kubectl delete lease {NAME}" in found.todo


def test_a_holder_that_lives_is_no_fault_though_its_clock_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second look comes once it must have renewed it: here, once it has, whatever the machine does meanwhile."""
    with LeaseApi(tmp_path) as api:
        living, ended = Claim(api.target, duration_s=6.0), threading.Event()
        living.acquire(ended)
        api.put(api.spec | {"renewTime": "2026-01-01T00:00:00.000000Z"})
        written = len(api.specs)

        def wait(seconds: float) -> None:
            assert seconds > 6.0 * RENEW
            until(lambda: len(api.specs) > written, 60, "a renewal")

        monkeypatch.setattr(lease, "time", SimpleNamespace(time=time.time, sleep=wait))
        thread = threading.Thread(target=living.renew, args=(ended,))
        thread.start()
        try:
            found = lease.kubernetes(api.target)
            assert (found.severity, found.what) == ("ok", f"held by {living.holder}, who renews it")
        finally:
            ended.set()
            thread.join()


def test_an_api_server_that_refuses_and_one_that_is_away(tmp_path: Path) -> None:
    with LeaseApi(tmp_path) as api:
        api.status = 403
        found = lease.kubernetes(api.target)
        assert found.severity == "refuse" and "403" in found.what and api.token not in found.what
        target = api.target
    found = lease.kubernetes(target)
    assert found.severity == "refuse" and "does not answer" in found.what


def test_the_lock_in_a_folder_is_looked_up_and_left_alone(tmp_path: Path) -> None:
    assert lease.file(tmp_path).what == "no trainer has run here"
    with FileLease.take(tmp_path) as held:
        assert lease.file(tmp_path).what.startswith("held by process ")
        holder = held.term.holder
    assert lease.file(tmp_path).what == f"nobody holds it here; the last to take it was {holder}"
    (tmp_path / "epoch.json").write_text(json.dumps([]))
    assert lease.file(tmp_path).what.endswith("nobody that is known")
