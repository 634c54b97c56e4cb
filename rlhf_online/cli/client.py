"""The running service as the command line sees it: where it is, and its HTTP API."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from rlhf_online.errors import InvalidInput, RlhfError, ServiceUnreachable
from rlhf_online.state import StateDir

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 300.0

UrlOption = Annotated[
    str, typer.Option("--url", help="Address of the chat service; by default the one that runs on the state folder.")
]
StateOption = Annotated[Path, typer.Option("--state", help="The state folder of `rlhf-online up`.")]
DEFAULT_STATE = Path("state")


class RequestRefused(RlhfError):
    """The service answered with an error."""


class Service:
    """The HTTP API at `url`. `token` is the operator's credential, "" without."""

    def __init__(self, url: str, token: str = "") -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise InvalidInput(f"--url {url} is no address: it looks like http://127.0.0.1:8000")
        self.url = url.rstrip("/")
        self._token = token

    def get(self, path: str, *, errors_too: bool = False) -> Any:
        """The JSON at `path`; with `errors_too` also that of an error's body. Raises as `_open` does."""
        with self._open("GET", path, None, errors_too=errors_too) as reply:
            return self._parsed(reply.read())

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that answers `body`."""
        with self._open("POST", path, body) as reply:
            return self._parsed(reply.read())

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of a server-sent stream up to `[DONE]`. Raises ServiceUnreachable if that never comes."""
        try:
            with self._open("POST", path, body) as reply:
                for line in reply:
                    if not line.startswith(b"data:"):
                        continue
                    data = line[5:].strip()
                    if data == b"[DONE]":
                        return
                    event = self._parsed(data)
                    if "error" in event:
                        raise RequestRefused(_message(event))
                    yield event
        except (OSError, HTTPException) as error:
            raise ServiceUnreachable(f"the answer from {self.url} broke off ({error}): ask again") from error
        raise ServiceUnreachable(f"the answer from {self.url} ended too early: ask again")

    def _open(self, method: str, path: str, body: dict[str, Any] | None, *, errors_too: bool = False) -> Any:
        """Raises RequestRefused with the service's own words, ServiceUnreachable if there is none."""
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if errors_too:
                return error
            with error:
                raise RequestRefused(f"{self.url} answered {error.code}: {_message(error.read())}") from error
        except (OSError, HTTPException) as error:
            why = getattr(error, "reason", error)
            raise ServiceUnreachable(
                f"no answer from {self.url} ({why}): start it with `rlhf-online up`, or name another with --url"
            ) from error

    def _parsed(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise ServiceUnreachable(f"{self.url} does not speak this API: name the chat service with --url") from error


def connect(url: str, state: Path, *, operator: bool = False) -> Service:
    """The service at `url`, or else the one that runs on the state folder, or else at the default port.

    With `operator` the state folder's credential is sent; raises InvalidInput if there is none.
    """
    token = os.environ.get("RLHF_OPERATOR_TOKEN", "")
    if operator and not token:
        # Read only where there is one: asking StateDir for it would make a new folder for a mistyped path.
        if not (state / "operator.token").is_file():
            raise InvalidInput(
                f"no operator's token in {state}: name the service's folder with --state, or set RLHF_OPERATOR_TOKEN"
            )
        token = StateDir(state).operator_token()
    return Service(url or running_at(state) or DEFAULT_URL, token)


def running_at(state: Path) -> str:
    """Address of the service that runs on the state folder, "" if none does."""
    try:
        ready = json.loads((state / "run" / "standalone.ready.json").read_text())
        os.kill(ready["pid"], 0)
        return f"http://{ready['host']}:{ready['http']}"
    except (OSError, ValueError, KeyError):
        return ""


def _message(body: bytes | dict[str, Any]) -> str:
    """The message of an error in OpenAI's form, or the body itself."""
    try:
        values = json.loads(body) if isinstance(body, bytes) else body
        error = values["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:500] if isinstance(body, bytes) else str(body)
