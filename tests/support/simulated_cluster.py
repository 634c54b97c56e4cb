"""A Kubernetes cluster on this machine whose control plane is real and whose nodes are pretended.

    etcd ◄── kube-apiserver ◄── kube-controller-manager   rollouts, Jobs, PodDisruptionBudgets, autoscaling
              │   ▲       ▲──── kube-scheduler            pods to nodes
              │   ├──────────── kwok                      says that scheduled pods run and are ready, and binds volumes
              │   └──────────── lws-controller            pods of a LeaderWorkerSet (`worker_groups`)
              └──────────────► Measured                   what pods are said to use, for HorizontalPodAutoscalers

So what is refused, admitted, rolled out and authorised is what the real thing does; no image runs. Everything listens
on 127.0.0.1, on ports from the system, and is ended by its process id, the API server before etcd.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from tests.support import worker_groups
from tests.support.certificates import Authority
from tests.support.measured import Measured
from tests.support.ops_tools import tool
from tests.support.ports import reserve
from tests.support.waiting import until

START_S, END_S, COMMAND_S = 120, 20, 300
ADMIN = "admin-token"
NODES = 3
STOP_LAST = ("kube-apiserver", "etcd")

Object = dict[str, Any]

CUSTOM = (
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "gateway.networking.k8s.io/v1/HTTPRoute",
    "gateway.networking.k8s.io/v1/BackendTLSPolicy",
    "keda.sh/v1alpha1/ScaledObject",
    "kafka.strimzi.io/v1/Kafka",
    "kafka.strimzi.io/v1/KafkaNodePool",
    "kafka.strimzi.io/v1/KafkaUser",
)
"""Kinds of others that the API server takes with any content, as nobody acts on them here."""

_LABEL = "pod-security.kubernetes.io/enforce"
_VOLUMES = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "kwok-volume", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "kwok.x-k8s.io/volume",
}
# A pod of `helm test`, or a hook that is no Job, ends well, as a Job's does by kwok's own stage.
_HOOKS_END = """
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: hook-complete}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: '.metadata.deletionTimestamp', operator: DoesNotExist}
    - {key: '.status.phase', operator: In, values: [Running]}
    - {key: '.metadata.annotations["helm.sh/hook"]', operator: Exists}
    - {key: '.metadata.ownerReferences', operator: DoesNotExist}
  next:
    statusTemplate: |
      phase: Succeeded
"""


class Failed(AssertionError):
    """A command that ended with another status than 0; its message is all that the command said."""


class Cluster:
    """`folder` holds its data, its logs and the kubeconfig."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(folder / "pki", "cluster")
        self.server = self.authority.issue("server")
        self.port, self._etcd, self._peer = reserve(), reserve(), reserve()
        self.kubeconfig = folder / "kubeconfig"
        self._write_kubeconfig()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}
        self._stack = ExitStack()
        self._namespaces = 0
        self.measured = Measured(self.authority, lambda namespace: self.find("pods", namespace))

    def __enter__(self) -> Self:
        files = {name: tool(name) for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")}
        kwok, stages, groups, _ = tool("kwok"), tool("stages.yaml"), tool("leaderworkersets.yaml"), tool("kubectl")
        controller, hooks = tool("lws-controller"), tool("lws-webhooks.yaml")
        try:
            self._launch(files["etcd"], self._etcd_arguments())
            self._launch(files["kube-apiserver"], self._apiserver_arguments())
            until(self._ready, START_S, lambda: f"the API server to be ready: {self.log('kube-apiserver')}")
            self._launch(files["kube-controller-manager"], self._controller_arguments())
            self._launch(
                files["kube-scheduler"], [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0"]
            )
            (self.folder / "stages.yaml").write_text(stages.read_text() + _HOOKS_END)
            self._launch(
                kwok, [f"--kubeconfig={self.kubeconfig}", "--manage-all-nodes", f"--config={self.folder}/stages.yaml"]
            )
            self._stack.enter_context(self.measured)
            self.apply(
                [
                    _VOLUMES,
                    *map(_definition, CUSTOM),
                    *(_node(number) for number in range(NODES)),
                    *self.measured.objects(),
                ]
            )
            self.kubectl("apply", "--server-side", "--filename", str(groups))
            configuration = worker_groups.configuration(self.folder, hooks_port := reserve(), self.server)
            self._launch(controller, [f"--kubeconfig={self.kubeconfig}", f"--config={configuration}"])
            until(lambda: worker_groups.listens(hooks_port), START_S, lambda: self.log("lws-controller"))
            self.apply(worker_groups.webhooks(hooks, hooks_port, self.authority.file))
            until(lambda: self._nodes_ready() == NODES, START_S, lambda: f"nodes to be ready: {self.log('kwok')}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process, those that others need last."""
        names = [name for name in reversed(self._processes) if name not in STOP_LAST]
        for name in (*names, *(name for name in STOP_LAST if name in self._processes)):
            process = self._processes.pop(name)
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._stack.close()

    @contextmanager
    def away(self, name: str) -> Iterator[None]:
        """That process is killed, and started again as it was when the block has ended."""
        process = self._processes[name]
        process.kill()
        process.wait()
        yield
        self._start(name)
        until(self._ready, START_S, lambda: f"the API server to be ready again: {self.log('kube-apiserver')}")

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """That process stands still while the block runs."""
        self._processes[name].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._processes[name].send_signal(signal.SIGCONT)

    @contextmanager
    def watched(self, kind: str, namespace: str) -> Iterator[list[Object]]:
        """When the block has ended, the list holds each state that objects of that kind were seen in meanwhile."""
        command = self._kubectl("get", kind, "--namespace", namespace, "--watch", "--output", "json")
        seen: list[Object] = []
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(command, stdout=output, env=self._environment())
            try:
                until(lambda: os.fstat(output.fileno()).st_size, START_S, f"the first of {kind}")
                yield seen
            finally:
                process.terminate()
                process.wait()
            output.seek(0)
            rest, decoder = output.read().lstrip(), json.JSONDecoder()
            while rest:
                one, end = decoder.raw_decode(rest)
                seen.append(one)
                rest = rest[end:].lstrip()

    def kubectl(self, *arguments: str, stdin: str | None = None, token: str = ADMIN) -> str:
        """What kubectl prints. Raises Failed."""
        return self.run(self._kubectl(*arguments, token=token), stdin)

    def helm(self, *arguments: str, release: str = "helm") -> str:
        """What helm prints, of its release "helm" or "helm3". Raises Failed."""
        return self.run([str(tool(release)), *arguments], None)

    def run(self, command: Sequence[str], stdin: str | None) -> str:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=self._environment(), timeout=COMMAND_S
        )
        if done.returncode:
            raise Failed(f"{done.stdout}\n{done.stderr}")
        return done.stdout

    def apply(self, objects: Iterable[Object], *, namespace: str = "") -> None:
        """Server-side, which drops no field that is misspelt but refuses it."""
        content = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        where = ["--namespace", namespace] if namespace else []
        self.kubectl("apply", "--server-side", *where, "--filename", "-", stdin=content)

    def get(self, kind: str, name: str, namespace: str) -> Object:
        return json.loads(self.kubectl("get", kind, name, "--namespace", namespace, "--output", "json"))

    def find(self, kind: str, namespace: str, labels: Mapping[str, str] | None = None) -> list[Object]:
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        given = ("--namespace", namespace, f"--selector={selector}", "--output", "json")
        return json.loads(self.kubectl("get", kind, *given))["items"]

    def token(self, account: str, namespace: str) -> str:
        """What a pod of that service account would have mounted."""
        return self.kubectl("create", "token", account, "--namespace", namespace).strip()

    def namespace(self, security: str = "restricted") -> str:
        """The name of a new namespace that admits pods of this pod security level only."""
        self._namespaces += 1
        name = f"ns-{self._namespaces}"
        self.apply(
            [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {_LABEL: security}}}]
        )
        account = ("get", "serviceaccount", "default", "--namespace", name, "--ignore-not-found", "--output", "name")
        until(lambda: self.kubectl(*account), START_S, "the controllers to see the namespace", poll_s=0.05)
        return name

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def _kubectl(self, *arguments: str, token: str = ADMIN) -> list[str]:
        place = ["--server", f"https://127.0.0.1:{self.port}", "--certificate-authority", str(self.authority.file)]
        return [str(tool("kubectl")), *place, "--token", token, *arguments]

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), "KUBECONFIG": str(self.kubeconfig)}

    def _launch(self, file: Path, arguments: list[str]) -> None:
        self._commands[file.name] = [str(file), *arguments]
        self._start(file.name)

    def _start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self._commands[name], cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def _ready(self) -> bool:
        for name, process in self._processes.items():
            assert process.poll() is None, f"{name} has ended: {self.log(name)}"
        try:
            return self.kubectl("get", "--raw", "/readyz") == "ok"
        except Failed:
            return False

    def _nodes_ready(self) -> int:
        nodes = self.find("nodes", "default")
        conditions = [item for node in nodes for item in node.get("status", {}).get("conditions", [])]
        return len([item for item in conditions if item["type"] == "Ready" and item["status"] == "True"])

    def _etcd_arguments(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        return [
            f"--data-dir={self.folder}/etcd-data", "--unsafe-no-fsync",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
        ]  # fmt: skip

    def _apiserver_arguments(self) -> list[str]:
        accounts, front = self.authority.issue("accounts"), self.authority.issue("front")
        (self.folder / "tokens.csv").write_text(f"{ADMIN},admin,admin,system:masters\n")
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd}", "--bind-address=127.0.0.1", f"--secure-port={self.port}",
            f"--tls-cert-file={self.server.cert}", f"--tls-private-key-file={self.server.key}",
            "--service-cluster-ip-range=10.0.0.0/24", "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={accounts.cert}",
            f"--service-account-signing-key-file={accounts.key}", "--authorization-mode=RBAC",
            f"--token-auth-file={self.folder}/tokens.csv", "--profiling=false",
            f"--requestheader-client-ca-file={self.authority.file}", "--requestheader-allowed-names=front",
            "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={front.cert}", f"--proxy-client-key-file={front.key}",
            "--feature-gates=WatchList=false",  # etcd 3.4 does not tell how far a watch is, and lists would wait for it
        ]  # fmt: skip

    def _controller_arguments(self) -> list[str]:
        return [
            f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0",
            f"--service-account-private-key-file={self.authority.folder}/accounts.key",
            f"--root-ca-file={self.authority.file}", "--use-service-account-credentials=false",
            "--horizontal-pod-autoscaler-sync-period=1s", "--horizontal-pod-autoscaler-downscale-stabilization=3s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=0s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=0s",
        ]  # fmt: skip

    def _write_kubeconfig(self) -> None:
        place = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(self.authority.file)}
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "simulated", "cluster": place}],
                    "users": [{"name": "admin", "user": {"token": ADMIN}}],
                    "contexts": [{"name": "simulated", "context": {"cluster": "simulated", "user": "admin"}}],
                    "current-context": "simulated",
                }
            )
        )


def _node(number: int) -> Object:
    capacity = {"cpu": "256", "memory": "4Ti", "pods": "500", "ephemeral-storage": "10Ti", "nvidia.com/gpu": "8"}
    name = f"node-{number}"
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": f"zone-{number}",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"allocatable": capacity, "capacity": capacity},
    }


def _definition(kind: str) -> Object:
    group, version, name = kind.split("/")
    plural = f"{name.lower().removesuffix('y')}{'ies' if name.endswith('y') else 's'}"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": name, "plural": plural, "singular": name.lower()},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }
