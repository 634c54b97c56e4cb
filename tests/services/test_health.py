"""services/health over what it asks: HTTP, a unix socket; and what it says of what is not well."""

import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from services.health import check, main
from tests.support.certificates import Authority
from tests.support.ports import reserve


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path in ("/healthz", "/health") else 503)
        self.end_headers()

    def address_string(self) -> str:
        return "somebody"

    def log_message(self, format: str, *args: object) -> None:
        pass


class UnixServer(socketserver.UnixStreamServer):
    pass


@pytest.fixture
def serve() -> Iterator[Callable[[socketserver.BaseServer], None]]:
    servers: list[socketserver.BaseServer] = []

    def begin(server: socketserver.BaseServer) -> None:
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def test_http(serve: Callable[[socketserver.BaseServer], None]) -> None:
    serve(server := HTTPServer(("127.0.0.1", 0), Handler))
    assert check(f"http://127.0.0.1:{server.server_port}/healthz") == ""
    assert check(f"http://127.0.0.1:{server.server_port}/readyz") == "it answered 503"


def test_a_port_that_speaks_tls_by_whatever_certificate(
    serve: Callable[[socketserver.BaseServer], None], tmp_path: Path
) -> None:
    files = Authority(tmp_path).issue("chat")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serve(server)
    assert check(f"https://127.0.0.1:{server.server_port}/healthz") == ""
    assert check(f"https://127.0.0.1:{server.server_port}/readyz") == "it answered 503"


def test_an_engine_on_a_unix_socket(serve: Callable[[socketserver.BaseServer], None], tmp_path: Path) -> None:
    serve(UnixServer(str(tmp_path / "engine.sock"), Handler))
    assert check(f"unix:{tmp_path}/engine.sock") == ""


def test_what_hangs_is_not_well(serve: Callable[[socketserver.BaseServer], None], tmp_path: Path) -> None:
    class Silent(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            self.request.recv(1)

    serve(UnixServer(str(tmp_path / "engine.sock"), Silent))
    assert check(f"unix:{tmp_path}/engine.sock", timeout_s=0.1) == "timed out"


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/healthz", "unix:{folder}/none.sock"])
def test_what_is_not_there_is_not_well(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = url.format(port=reserve(), folder=tmp_path)
    assert main([url]) == 1
    assert capsys.readouterr().err.startswith(f"{url}: ")


def test_another_kind_of_url_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["127.0.0.1:8000"])
    assert "expected http://host:port/path, https://… or unix:/path" in capsys.readouterr().err
