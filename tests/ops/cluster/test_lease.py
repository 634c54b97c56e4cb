"""The trainer's lease on the real API: one trainer writes, whatever becomes of the others and of the way to the API."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.errors import ConfigError
from rlhf_online.training.lease.lease_object import ACCOUNT as ACCOUNT_FOLDER
from tests.support.proxy import Proxy
from tests.support.simulated_cluster import Cluster, Object
from tests.support.waiting import until

pytestmark = pytest.mark.ops

NAME, ACCOUNT = "rlhf-trainer", "trainer"
HELD_S = 5
WAIT_S = 120


@dataclass(frozen=True)
class Home:
    """A namespace with the trainer's service account, and the folder of checkpoints that its pods share."""

    cluster: Cluster
    namespace: str
    folder: Path

    @property
    def spec(self) -> dict[str, Any]:
        found = self.cluster.find("leases", self.namespace)
        return found[0]["spec"] if found else {}

    def account(self, name: str = ACCOUNT) -> Path:
        """What the pod of that service account has mounted."""
        folder = self.folder / f"account-{name}"
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(self.cluster.token(name, self.namespace))
        (folder / "ca.crt").write_bytes(self.cluster.authority.file.read_bytes())
        (folder / "namespace").write_text(self.namespace)
        return folder


class Trainer:
    """A process that wants the lease and commits when it is told to."""

    def __init__(self, home: Home, port: int, duration_s: float) -> None:
        arguments = [str(home.folder / "checkpoints"), str(home.account()), NAME, str(duration_s)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.lease_holder", *arguments],
            env=os.environ | {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def hears(self, what: str) -> str:
        """The next line that has `what` in it."""

        def line() -> str:
            return "" if self.said.empty() else self.said.get()

        while what not in (said := until(line, WAIT_S, lambda: f"{what!r}; it said {self._lines}")):
            pass
        return said

    def epoch(self) -> int:
        """Once it has the lease."""
        return int(self.hears("epoch ").split()[-1])

    def commit(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def commits(self) -> None:
        self.commit()
        self.hears("committed")

    def refused(self) -> str:
        """Why it ends when it is told to commit."""
        self.commit()
        why = self.hears("error: ")
        assert self.process.wait(WAIT_S) == 1
        return why

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdout.close()
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line.strip())
            self.said.put(line.strip())


@contextmanager
def trainer(home: Home, *, through: Proxy | None = None, duration_s: float = HELD_S) -> Iterator[Trainer]:
    one = Trainer(home, through.port if through else home.cluster.port, duration_s)
    try:
        yield one
    finally:
        one.end()


def free_lease() -> Object:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": NAME},
        "spec": {"holderIdentity": "", "leaseDurationSeconds": 1},
    }


def granted(*verbs: str) -> list[Object]:
    """A service account that may do this with Lease objects of its namespace; if nothing, then list them."""
    rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs or ["list"]}
    group, meta = "rbac.authorization.k8s.io", {"name": ACCOUNT}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT}],
        },
    ]


@pytest.fixture
def home(cluster: Cluster, tmp_path: Path) -> Home:
    return Home(cluster, namespace(cluster, "get", "create", "update"), tmp_path)


def namespace(cluster: Cluster, *verbs: str) -> str:
    """A new one, with the service account."""
    name = cluster.namespace()
    objects = granted(*verbs)
    objects[-1]["subjects"][0]["namespace"] = name
    cluster.apply(objects, namespace=name)
    return name


def epochs_committed(home: Home) -> list[int]:
    """Of the checkpoints, in their order."""
    manifests = sorted((home.folder / "checkpoints").glob("*/manifest.json"))
    return [json.loads(path.read_text())["epoch"] for path in manifests]


def test_of_two_that_start_at_once_one_trains_and_the_other_follows_when_it_ends(home: Home) -> None:
    with trainer(home) as one, trainer(home) as two:
        until(lambda: home.spec.get("holderIdentity"), WAIT_S, "one to hold the lease")
        first, second = (one, two) if f"process {one.process.pid}," in home.spec["holderIdentity"] else (two, one)
        assert first.epoch() == 1
        first.commits()
        second.hears("waiting for it to end")
        assert first.process.stdin is not None
        first.process.stdin.close()
        assert first.process.wait(WAIT_S) == 0
        assert second.epoch() == 2
        second.commits()
        assert home.spec["leaseTransitions"] == 1
    assert epochs_committed(home) == [1, 2]


def test_a_dead_holder_is_followed_when_its_lease_has_run_out(home: Home) -> None:
    with trainer(home) as one, trainer(home) as two:
        until(lambda: home.spec.get("holderIdentity"), WAIT_S, "one to hold the lease")
        first, second = (one, two) if f"process {one.process.pid}," in home.spec["holderIdentity"] else (two, one)
        first.epoch()
        first.commits()
        first.process.kill()
        assert second.epoch() == 2
        second.commits()
        assert f"process {second.process.pid}," in home.spec["holderIdentity"]
    assert epochs_committed(home) == [1, 2]


def test_one_that_stood_still_meanwhile_is_fenced_off(home: Home) -> None:
    with trainer(home) as sleeper:
        sleeper.epoch()
        sleeper.commits()
        sleeper.process.send_signal(signal.SIGSTOP)
        with trainer(home) as successor:
            assert successor.epoch() == 2
            successor.commits()
            sleeper.process.send_signal(signal.SIGCONT)
            assert "epoch 1" in sleeper.refused()
            successor.commits()
    assert epochs_committed(home) == [1, 2, 2]


def test_one_that_is_cut_off_from_the_api_writes_nothing_once_another_has_begun(home: Home) -> None:
    with Proxy() as way:
        way.target = home.cluster.port
        with trainer(home, through=way) as alone:
            assert alone.epoch() == 1
            alone.commits()
            with trainer(home) as other:
                other.hears("waiting for it to end")
                way.cut = True
                assert other.epoch() == 2
                assert " no more: " in alone.refused()
                way.cut = False
                other.commits()
    assert epochs_committed(home) == [1, 2]


def test_rights_that_are_taken_away_end_it_and_are_named(home: Home) -> None:
    with trainer(home) as one:
        one.epoch()
        home.cluster.kubectl("delete", "rolebinding", ACCOUNT, "--namespace", home.namespace)
        ended = time.monotonic() + HELD_S + 1
        assert "the API server says 403" in one.hears("the lease is not renewed")
        until(lambda: time.monotonic() > ended, WAIT_S, "the lease to run out")
        assert "could not be renewed" in one.refused()


def test_an_api_server_that_starts_again_costs_nobody_the_lease(home: Home) -> None:
    with trainer(home, duration_s=30) as one:
        assert one.epoch() == 1
        before = home.spec["renewTime"]
        with home.cluster.away("kube-apiserver"):
            one.hears("not renewed")
            one.commits()
        until(lambda: home.spec["renewTime"] > before, WAIT_S, "a renewal")
        one.commits()
    assert epochs_committed(home) == [1, 1]


@pytest.mark.parametrize("verbs", [(), ("get",), ("get", "create")], ids=lambda verbs: "-".join(verbs) or "nothing")
def test_an_account_that_may_not_have_the_lease_is_told_what_it_needs(
    cluster: Cluster, tmp_path: Path, verbs: tuple[str, ...]
) -> None:
    home = Home(cluster, namespace(cluster, *verbs), tmp_path)
    if "create" in verbs:
        cluster.apply([free_lease()], namespace=home.namespace)
    with trainer(home) as one:
        said = one.hears("error: ")
        assert "the API server says 403" in said and "leases.coordination.k8s.io" in said
        assert f"get, create and update leases.coordination.k8s.io in namespace {home.namespace}" in said
        assert one.process.wait(WAIT_S) == ConfigError.exit_code
    assert not (tmp_path / "checkpoints").exists()


def test_the_service_itself_says_so(cluster: Cluster, tmp_path: Path) -> None:
    home = Home(cluster, namespace(cluster), tmp_path)
    home.account()
    (tmp_path / "trainer.toml").write_text(
        f'state_dir = "{tmp_path}/state"\nchat_url = "x"\nreward_address = "x"\nmodel = "m"\n'
        '[lease]\nkind = "kubernetes"\n'
    )
    pod = f"""
        mount -t tmpfs none /var/run && mkdir -p {ACCOUNT_FOLDER.parent}
        ln -s {tmp_path}/account-{ACCOUNT} {ACCOUNT_FOLDER}
        exec {sys.executable} -m services.trainer --config {tmp_path}/trainer.toml
    """
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", pod],
        env=os.environ | {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(cluster.port)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert ended.returncode == ConfigError.exit_code, ended.stderr
    assert "says 403" in ended.stderr and "Let the pod's service account get, create and update" in ended.stderr
    assert "Traceback" not in ended.stderr
