"""One client for a port and for a unix socket."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from rlhf_online import http


class Echo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        said = f"{self.headers['Host']} {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def address_string(self) -> str:
        return ""

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "echo.sock"
    with ThreadingUnixStreamServer(str(path), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def test_a_socket(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever proxy the environment names."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with http.connect(f"unix:{socket}", trust_env=True) as client:
        assert client.get("/v1/versions?kind=policy").text == "localhost /v1/versions?kind=policy"


def test_a_port() -> None:
    with http.connect("http://127.0.0.1:8000/", headers={"X-A": "b"}) as client:
        request = client.build_request("GET", "/v1/models")
        assert (str(request.url), request.headers["X-A"]) == ("http://127.0.0.1:8000/v1/models", "b")
