"""What pods are said to use, as a metrics server, and an adapter for other metrics, serve it to autoscalers.

Registered with the API server for the groups below, behind a Service of the type ExternalName.
"""

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.certificates import Authority

GROUPS = ("metrics.k8s.io/v1beta1", "custom.metrics.k8s.io/v1beta2")
SERVICE = {"namespace": "kube-system", "name": "measured"}


class Measured:
    """Attributes may be changed at any time: `cpu`, the cores that each pod uses, and `value`, of every other metric.

    `pods` tells the pods of a namespace.
    """

    def __init__(self, authority: Authority, pods: Callable[[str], list[Any]]) -> None:
        self.cpu, self.value = 0.1, 0.0
        self._pods = pods
        files = authority.issue("measured")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def objects(self) -> Iterator[dict[str, Any]]:
        """What makes the API server ask here."""
        port = self._server.server_address[1]
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": SERVICE,
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        }
        for served in GROUPS:
            group, version = served.split("/")
            yield {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": f"{version}.{group}"},
                "spec": {
                    "group": group,
                    "version": version,
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "service": SERVICE | {"port": port},
                    "insecureSkipTLSVerify": True,
                },
            }

    def answer(self, path: str) -> dict[str, Any]:
        """To GET `path`: the list of a group's resources, or /apis/GROUP/VERSION/namespaces/NAMESPACE/…"""
        parts = path.strip("/").split("/")
        served = "/".join(parts[1:3])
        if len(parts) < 5:
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": served, "resources": []}
        namespace, metric, now = parts[4], parts[-1], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        pods = self._pods(namespace)
        if served == GROUPS[1]:
            values = [
                {
                    "describedObject": {"kind": "Pod", "namespace": namespace, "name": pod["metadata"]["name"]},
                    "metric": {"name": metric},
                    "timestamp": now,
                    "value": f"{self.value:g}",
                }
                for pod in pods
            ]
            return {"kind": "MetricValueList", "apiVersion": served, "items": values}
        used = [
            {"metadata": pod["metadata"], "timestamp": now, "window": "1s", "containers": self._used(pod)}
            for pod in pods
        ]
        return {"kind": "PodMetricsList", "apiVersion": served, "items": used}

    def _used(self, pod: dict[str, Any]) -> list[dict[str, Any]]:
        containers = pod["spec"]["containers"] + [
            one for one in pod["spec"].get("initContainers", []) if one.get("restartPolicy") == "Always"
        ]
        cores = f"{1000 * self.cpu / len(containers):.0f}m"
        return [{"name": one["name"], "usage": {"cpu": cores, "memory": "1Gi"}} for one in containers]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        measured = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                content = json.dumps(measured.answer(path)).encode()
                self.send_response(200 if path.startswith("/apis/") else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def handle(self) -> None:
                with contextlib.suppress(OSError):  # a connection that the API server breaks off
                    super().handle()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
