"""An S3 server in a process of its own: moto's, out of the package registry, with one bucket and faults on demand.

moto asks whether a condition holds and writes in two steps, which S3 does in one: so it is given a request at a time.
What a request to `/-/…` asks is ours and never reaches it: which requests came, and how to answer some from now on.

RLHF_TEST_S3=http://127.0.0.1:PORT names another server that runs already, with these credentials and bucket, but no
faults: `tests/versions/test_contract.py` and `test_registry.py` run over it as well.
"""

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

BUCKET = "versions"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
DENIED = (403, "AccessDenied")
FULL = (507, "XMinioStorageFull")
HIDDEN = (404, "NoSuchKey")


class ObjectServer:
    """Asks the server at `port` about itself, or to answer otherwise."""

    def __init__(self, port: int, *, ours: bool = True) -> None:
        self.port = port
        self._ours = ours

    def refuse(self, answer: tuple[int, str], methods: str, path: str = "") -> None:
        """Answer requests of these `methods` ("PUT POST") whose path holds `path` with that status and code."""
        self._ask("refuse", {"status": answer[0], "code": answer[1], "methods": methods.split(), "path": path})

    def pass_over_conditions(self) -> None:
        """Write whatever If-Match and If-None-Match say, as some storage does."""
        self._ask("refuse", {"conditions": True})

    def relent(self) -> None:
        """Answer everything as it should be again."""
        self._ask("refuse", {})

    def requests(self) -> list[tuple[str, str, int, int]]:
        """(method, path, status, bytes of the body of the answer) of those since this was asked last."""
        return [tuple(each) for each in self._ask("requests", {})]

    def _ask(self, what: str, values: dict[str, Any]) -> Any:
        if not self._ours:
            return []
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/-/{what}", json.dumps(values).encode())
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)


@contextlib.contextmanager
def object_server() -> Iterator[ObjectServer]:
    """One that runs in the block, with an empty bucket."""
    if other := os.environ.get("RLHF_TEST_S3"):
        yield ObjectServer(int(other.rpartition(":")[2]), ours=False)
        return
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.object_server"]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield ObjectServer(int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def environment(port: int) -> dict[str, str]:
    """What leads a client to the server, or to a proxy in front of it."""
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


class _Door:
    """The WSGI application in front of moto's."""

    def __init__(self, inside: Callable[..., Iterable[bytes]]) -> None:
        self._inside = inside
        self._one_at_a_time = threading.Lock()
        self._refused: dict[str, Any] = {}
        self._seen: list[tuple[str, str, int, int]] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path.startswith("/-/"):
            values = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            told: Any = self._seen
            if path == "/-/refuse":
                self._refused, told = values, []
            else:
                self._seen = []
            return _answer(start_response, "200 OK", json.dumps(told).encode())
        refused = self._refused
        if method == "PUT" and refused.get("conditions"):
            for condition in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"):
                environ.pop(condition, None)
        if method in refused.get("methods", ()) and refused["path"] in path:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            code = refused["code"]
            body = f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()
            self._seen.append((method, path, refused["status"], len(body)))
            return _answer(start_response, f"{refused['status']} {code}", b"" if method == "HEAD" else body)
        statuses: list[str] = []

        def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            statuses.append(status)
            return start_response(status, headers, *rest)

        with self._one_at_a_time:
            body = b"".join(self._inside(environ, started))
        self._seen.append((method, path, int(statuses[-1].split()[0]), len(body)))
        return [body]


def _answer(start_response: Callable[..., Any], status: str, body: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def main() -> None:
    """Serve on a port of the system's choice, which is printed, until killed."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    os.environ.update(CREDENTIALS, MOTO_S3_DEFAULT_KEY_BUFFER_SIZE=str(64 << 20))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # connections are kept, as by S3
    door = _Door(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", parser.parse_args().port, door, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{server.port}/{BUCKET}", method="PUT")).close()
    print(server.port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
