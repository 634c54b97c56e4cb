"""The real controller of LeaderWorkerSets, beside a simulated cluster: it makes a group's pods, and what they know.

In a cluster the API server reaches its webhooks by a Service; here by their address, with a certificate of the
cluster's own authority in the place of cert-manager's.
"""

import base64
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.certificates import Files

POD = {"matchExpressions": [{"key": "leaderworkerset.sigs.k8s.io/name", "operator": "Exists"}]}
"""Of which pods the controller is asked: its release patches the generated webhooks likewise."""


def configuration(folder: Path, port: int, server: Files) -> Path:
    """Its file: webhooks on that port, with that certificate; no metrics, and no other instance to agree with."""
    certificates = folder / "webhooks"
    certificates.mkdir()
    shutil.copy(server.cert, certificates / "tls.crt")
    shutil.copy(server.key, certificates / "tls.key")
    told = {
        "apiVersion": "config.lws.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "internalCertManagement": {"enable": False},
        "leaderElection": {"leaderElect": False},
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(certificates)},
        "metrics": {"bindAddress": "0"},
        "health": {"healthProbeBindAddress": "0"},
    }
    (path := folder / "lws-controller.yaml").write_text(json.dumps(told))
    return path


def webhooks(manifests: Path, port: int, authority: Path) -> Iterator[dict[str, Any]]:
    """What the API server has to be told of them."""
    bundle = base64.b64encode(authority.read_bytes()).decode()
    for one in yaml.safe_load_all(manifests.read_text()):
        for hook in one["webhooks"]:
            path = hook["clientConfig"]["service"]["path"]
            hook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{path}", "caBundle": bundle}
            if path.endswith("-v1-pod"):
                hook["objectSelector"] = POD
        yield one


def listens(port: int) -> bool:
    """Whether the webhooks are there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
