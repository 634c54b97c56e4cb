"""HTTP to one engine, on a unix socket or an address: every call is bounded in time, every failure an EngineError."""

import json
from typing import Any

import aiohttp

from rlhf_online.errors import EngineError, EngineUnavailable

CALL_TIMEOUT_S = 30.0


class EngineTransport:
    """Calls to the engine at `url`: "unix:/path" or "http://host:port".

    `base` and `session` are for callers that speak to vLLM's OpenAI routes themselves: `session.post(base + "/v1/…")`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.base = "http://engine" if url.startswith("unix:") else url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """Without a total time-out, since streams are long; made on first use, inside the running loop."""
        if self._session is None or self._session.closed:
            if self.url.startswith("unix:"):
                connector: aiohttp.BaseConnector = aiohttp.UnixConnector(self.url.removeprefix("unix:"), limit=0)
            else:
                connector = aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._session

    async def close(self) -> None:
        """Drop all connections; answers in progress end with an error."""
        if self._session is not None:
            await self._session.close()

    async def post(self, path: str, body: dict[str, Any] | None = None, *, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """See `call`."""
        return await self.call("POST", path, body, timeout_s=timeout_s)

    async def call(
        self, verb: str, path: str, body: dict[str, Any] | None = None, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> Any:
        """What the engine answers, from JSON where it is JSON.

        Raises EngineUnavailable if it does not answer in time, EngineError if it answers with an error.
        """
        route = path.partition("?")[0]
        try:
            async with self.session.request(
                verb, self.base + path, json=body, timeout=aiohttp.ClientTimeout(total=timeout_s)
            ) as response:
                text = await response.text()
                if response.status != 200:
                    raise EngineError(f"the engine refused {route} with {response.status}: {_message(text)}")
        except TimeoutError as error:
            raise EngineUnavailable(f"the engine did not finish {route} within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnavailable(f"the engine does not answer {route} ({error!r})") from error
        try:
            return json.loads(text)
        except ValueError:
            return text


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])[:300]
    except (ValueError, TypeError, KeyError):
        return text[:300]
