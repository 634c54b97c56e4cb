"""The running service as the command line sees it: where it is, and its HTTP API."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from rlhf_online import sse
from rlhf_online.config.explain import masked
from rlhf_online.errors import InvalidInput, RlhfError, ServiceUnreachable
from rlhf_online.state import SHORTEST_SECRET, StateDir

if TYPE_CHECKING:  # imported where it is used, so that --help is instant
    import httpx

KEY_VARIABLE = "RLHF_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 300.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")

UrlOption = Annotated[
    str, typer.Option("--url", help="Address of the chat service; by default the one that runs on the state folder.")
]
InsteadUrlOption = Annotated[
    str, typer.Option("--url", help="Address of a chat service, which is asked instead of the state folder.")
]
StateOption = Annotated[Path, typer.Option("--state", help="The state folder of `rlhf-online up`.")]
DEFAULT_STATE = Path("state")


class RequestRefused(RlhfError):
    """The service answered with an error."""


class Service:
    """The HTTP API at `url`. `token` is the operator's credential, "" without."""

    def __init__(self, url: str, token: str = "") -> None:
        import httpx

        from rlhf_online import http

        try:
            address = urlsplit(url)
        except ValueError as error:
            raise _no_address(url, error) from error
        if address.scheme not in ("http", "https", "unix"):
            raise _no_address(url)
        self._name = masked(url.rstrip("/"))
        try:
            self._client = http.connect(
                url.rstrip("/"),
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=TIMEOUT_S,
                follow_redirects=True,
                trust_env=address.hostname not in LOOPBACK,  # a proxy is meant for the outside
            )
        except httpx.InvalidURL as error:
            raise _no_address(url, error) from error

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def get(self, path: str, *, errors_too: bool = False) -> Any:
        """The JSON at `path`; with `errors_too` also that of an error's body. Raises as `_open` does."""
        with self._open("GET", path, None, errors_too=errors_too) as reply:
            return self._parsed(reply.read())

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that answers `body`."""
        with self._open("POST", path, body) as reply:
            return self._parsed(reply.read())

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that answers `body`."""
        with self._open("PUT", path, body) as reply:
            return self._parsed(reply.read())

    def delete(self, path: str) -> Any:
        """The JSON that answers."""
        with self._open("DELETE", path, None) as reply:
            return self._parsed(reply.read())

    def post_lines(self, path: str, lines: bytes, key: str = "") -> Any:
        """The JSON that answers lines of JSON, sent under an idempotency key, if there is one."""
        with self._open("POST", path, lines, headers={"Idempotency-Key": key} if key else None) as reply:
            return self._parsed(reply.read())

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of a server-sent stream up to `[DONE]`. Raises ServiceUnreachable if that never comes."""
        parser = sse.EventParser()
        with self._open("POST", path, body) as reply:
            for piece in reply.iter_bytes():
                for data in parser.feed(piece):
                    if data == sse.DONE:
                        return
                    event = self._parsed(data)
                    if "error" in event:
                        raise RequestRefused(_message(event))
                    yield event
        raise ServiceUnreachable(f"the answer from {self._name} ended too early: ask again")

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | bytes | None,
        *,
        errors_too: bool = False,
        headers: dict[str, str] | None = None,
    ) -> "Iterator[httpx.Response]":
        """The reply, to be read in the block.

        Raises RequestRefused with the service's own words, ServiceUnreachable if there is none or it breaks off.
        """
        import httpx

        try:
            sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
            request = self._client.build_request(method, path, headers=headers, **sent)
            reply = self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceUnreachable(
                f"no answer from {self._name} ({error}): start it with `rlhf-online up`, or name another with --url"
            ) from error
        try:
            if not (reply.is_success or errors_too):
                raise RequestRefused(f"{self._name} answered {reply.status_code}: {_message(reply.read())}")
            yield reply
        except httpx.HTTPError as error:
            raise ServiceUnreachable(f"the answer from {self._name} broke off ({error}): ask again") from error
        finally:
            reply.close()

    def _parsed(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise ServiceUnreachable(
                f"{self._name} does not speak this API: name the chat service with --url"
            ) from error


@contextmanager
def connect(url: str, state: Path, *, operator: bool = False) -> Iterator[Service]:
    """The service at `url`, or else the one that runs on the state folder, or else at the default port.

    What is sent is the key that was named, if any; with `operator` the credential of the environment or of the state
    folder comes first. Raises InvalidInput if an operator has none, or none of any use.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    token = os.environ.get("RLHF_OPERATOR_TOKEN", "").strip()
    sent = _credential(token, key, state) if operator else key or token
    service = Service(url or running_at(state) or DEFAULT_URL, sent)
    try:
        yield service
    finally:
        service.close()


def _no_address(url: str, error: Exception | None = None) -> InvalidInput:
    why = f" ({error})" if error else ""
    return InvalidInput(f"--url {masked(url)} is no address{why}: it looks like http://127.0.0.1:8000")


def _credential(token: str, key: str, state: Path) -> str:
    if 0 < len(token) < SHORTEST_SECRET:
        raise InvalidInput(
            f"RLHF_OPERATOR_TOKEN holds {len(token)} characters, and an operator's token has at least "
            f"{SHORTEST_SECRET}: set it to the content of operator.token in the service's state folder"
        )
    # Read only where there is one: asking StateDir for it would make a new folder for a mistyped path.
    if not token and (state / "operator.token").is_file():
        token = StateDir(state).operator_token()
    if not (token or key):
        raise InvalidInput(
            f"no operator's token in {state}: name the service's folder with --state, set RLHF_OPERATOR_TOKEN, or name "
            f"an operator's key with --key or {KEY_VARIABLE}"
        )
    return token or key


def running_at(state: Path) -> str:
    """Address of the service that runs on the state folder, "" if none does."""
    try:
        ready = json.loads((state / "run" / "standalone.ready.json").read_text())
        os.kill(ready["pid"], 0)
        return ready["url"]
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
