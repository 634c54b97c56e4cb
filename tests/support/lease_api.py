"""As much of a Kubernetes API server as one Lease needs, over TLS: token, resourceVersion, conflicts, failures."""

import contextlib
import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from rlhf_online.training.lease.lease_object import LeaseObject

LEASES = "/apis/coordination.k8s.io/v1/namespaces/chat/leases"
NAME = "rlhf-trainer"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "ca.crt", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
         "-out", str(files[0]), "-keyout", str(files[1])],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


class LeaseApi:
    """Attributes may be changed at any time.

    `status` answers everything with an error that repeats the credential; `hang` lets requests without an answer until
    it ends; `deaf_to` fails the writes of one holder; `lose` answers are swallowed after the write was made; `together`
    holds back writes until so many have come.
    """

    def __init__(self, folder: Path) -> None:
        self.token = "first-token"
        self.lease: dict[str, Any] | None = None
        self.status, self.hang, self.deaf_to, self.lose = 0, False, "", 0
        self.together: threading.Barrier | None = None
        self.requests = 0
        self.specs: list[dict[str, Any]] = []
        """What was written, one after another."""
        self.account = folder / "account"
        self._lock, self._ended, self._version = threading.Lock(), threading.Event(), 100
        ca, key = certificate(self.account)
        (self.account / "token").write_text(self.token)
        (self.account / "namespace").write_text("chat")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ca, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def target(self) -> LeaseObject:
        return LeaseObject(NAME, "chat", "127.0.0.1", self.port, self.account)

    @property
    def spec(self) -> dict[str, Any]:
        return self.specs[-1] if self.specs else {}

    def put(self, spec: dict[str, Any]) -> None:
        """Change the object as somebody with `kubectl edit` would."""
        with self._lock:
            self._store(spec)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self.together:
            self.together.abort()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, token: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Status and content; None for no answer."""
        self.requests += 1
        deaf = self.deaf_to and method != "GET" and body["spec"]["holderIdentity"] == self.deaf_to
        if self.status or self.hang or deaf:
            while self.hang and not self._ended.wait(0.01):
                pass
            return (self.status or 503, {"message": f"no, {token}"}) if not self._ended.is_set() else None
        if token != f"Bearer {self.token}":
            return 401, {"message": f"who is {token}?"}
        if method != "GET" and self.together:
            with contextlib.suppress(threading.BrokenBarrierError):
                self.together.wait()
        with self._lock:
            answer = self._changed(method, path, body)
        if method != "GET" and self.lose:
            self.lose -= 1
            return None
        return answer

    def _changed(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        there = self.lease is not None
        assert path == (LEASES if method == "POST" else f"{LEASES}/{NAME}")
        if method == "GET" or (method == "PUT" and not there):
            return (200, self.lease) if self.lease else (404, {"message": "not found"})
        wrong = there if method == "POST" else body["metadata"]["resourceVersion"] != str(self._version)
        if wrong:
            return 409, {"message": "the object has been modified"}
        return (201 if method == "POST" else 200), self._store(body["spec"])

    def _store(self, spec: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        self.specs.append(spec)
        self.lease = {
            "metadata": {"name": NAME, "namespace": "chat", "resourceVersion": str(self._version)},
            "spec": spec,
        }
        return self.lease

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def reply(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
                answer = api.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
                self.close_connection = True
                if answer is None:
                    return
                content = json.dumps(answer[1]).encode()
                with contextlib.suppress(OSError):  # the client has given up meanwhile
                    self.send_response(answer[0])
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = reply

            def handle(self) -> None:
                with contextlib.suppress(OSError):  # a handshake that the client breaks off
                    super().handle()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
