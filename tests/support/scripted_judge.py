"""A judge by a script: an OpenAI-compatible endpoint on a port of the system's choice."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Reply = dict[str, Any] | tuple[int, str] | None
"""A body, or a status and a text, or nothing: the connection is closed."""
Script = Callable[[dict[str, Any]], Reply]


def letters(a: float, b: float, *, says: str = "", total: int = 100) -> dict[str, Any]:
    """A reply of one token with these probabilities of A and B, as the API words it."""
    import math

    top = [{"token": token, "logprob": math.log(p)} for token, p in ((" A", a), ("B", b)) if p > 0]
    said = says or ("A" if a > b else "B")
    return {
        "choices": [
            {
                "message": {"role": "assistant", "content": said},
                "logprobs": {"content": [{"token": said, "logprob": -0.1, "top_logprobs": top}]},
            }
        ],
        "usage": {"total_tokens": total},
    }


def prose(text: str) -> dict[str, Any]:
    """A reply without probabilities."""
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def parts(body: dict[str, Any]) -> tuple[str, str]:
    """The answers A and B that a request asks about."""
    text = body["messages"][1]["content"]
    mark = text.split(maxsplit=1)[0]
    _, a, b, _ = text.split(f"{mark} ")[1:]
    return a.removeprefix("ANSWER A\n").rstrip("\n"), b.removeprefix("ANSWER B\n").rstrip("\n")


class OnSocket(ThreadingHTTPServer):
    """HTTP on a unix socket, as the engine speaks it."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)


@contextmanager
def scripted_judge(script: Script, path: Path | None = None) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its address, on a unix socket where `path` names one, and the requests that came, until the block ends."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body | {"key": self.headers.get("Authorization", ""), "path": self.path})
            match script(body):
                case None:
                    self.close_connection = True
                case (status, text):
                    self._send(status, text.encode())
                case reply:
                    self._send(200, json.dumps(reply).encode())

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    address: Any = str(path) if path else ("127.0.0.1", 0)
    made = (OnSocket if path else ThreadingHTTPServer)(address, Handler)
    with made as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"unix:{path}" if path else f"http://127.0.0.1:{server.server_address[1]}/v1", asked
        finally:
            server.shutdown()
            thread.join()
