"""Is a service well? `python -m services.health URL`, a container's health check: exit code 0, or 1 and one sentence.

    http://127.0.0.1:8000/healthz               answers 200
    https://127.0.0.1:8000/healthz              the same where [tls] is set: any certificate will do, as to a kubelet
    unix:/run/rlhf-online/engine/engine.sock    an engine there answers GET /health with 200

The standard library alone: a check runs every few seconds.
"""

import argparse
import http.client
import socket
import ssl
import sys
from urllib.parse import urlsplit

TIMEOUT_S = 5.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def check(url: str, timeout_s: float = TIMEOUT_S) -> str:
    """ "" if what is at `url` is well, else what it is. Raises ValueError for a URL of another kind."""
    parts = urlsplit(url)
    try:
        match parts.scheme:
            case "unix":
                return _http(_UnixConnection(parts.path, timeout_s), "/health")
            case "http" if parts.hostname:
                connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
                return _http(connection, parts.path or "/")
            case "https" if parts.hostname:
                connection = http.client.HTTPSConnection(
                    parts.hostname, parts.port, timeout=timeout_s, context=_any_certificate()
                )
                return _http(connection, parts.path or "/")
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    raise ValueError(f"{url!r}: expected http://host:port/path, https://… or unix:/path")


def _any_certificate() -> ssl.SSLContext:
    """Nothing secret is told or asked, and no certificate names the address of a container's own port."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _http(connection: http.client.HTTPConnection, path: str) -> str:
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    finally:
        connection.close()
    return "" if status == http.HTTPStatus.OK else f"it answered {status}"


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 well, 1 not."""
    parser = argparse.ArgumentParser(prog="python -m services.health", description="Whether a service is well.")
    parser.add_argument("url", help="http://host:port/path, https://… or unix:/path")
    url = parser.parse_args(argv).url
    try:
        wrong = check(url)
    except ValueError as error:
        parser.error(str(error))
    if wrong:
        print(f"{url}: {wrong}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
