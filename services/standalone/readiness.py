"""What the chat service's /readyz says, told as it changes: the engine's state, and secrets that are in danger."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from rlhf_online import http
from rlhf_online.errors import ServiceFailed

ASK_S, TIMEOUT_S = 1.0, 2.0
PROGRESS_S = 20.0


class Readiness:
    """`tell` takes a line; a start of the engine that may take `start_timeout_s` is told of while it lasts.

    `engine_was_up`: it has served, or waited for its first version, since this was made.
    """

    def __init__(self, tell: Callable[[str], None], start_timeout_s: float) -> None:
        self.engine_was_up = False
        self._tell = tell
        self._start_timeout_s = start_timeout_s
        self._http: httpx.Client | None = None
        self._engine = ""
        self._secrets = "ok"
        self._since_s = self._tell_at_s = self._ask_at_s = 0.0

    def follow(self, url: str, live: str | None) -> None:
        """Ask the service at `url`, which stays the same, if it is time.

        Raises ServiceFailed if the engine has given up and was never up.
        """
        now = time.monotonic()
        if now < self._ask_at_s:
            return
        values = self._ask(url)
        self._ask_at_s = now + ASK_S
        if (secrets := str(values.get("secrets", self._secrets))) != self._secrets:
            self._secrets = secrets
            self._tell(f"secrets        {secrets}")
        engine = str(values.get("state", ""))
        if engine == "failed" and not self.engine_was_up:
            raise ServiceFailed(f"the engine cannot start: {values.get('message') or 'it said nothing'}")
        self.engine_was_up = self.engine_was_up or engine in ("ready", "waiting")
        said = f"{engine}: {values.get('message')}" if engine == "waiting" else engine
        if engine and said != self._engine:
            if engine == "ready":
                self._tell(f"ready          {values.get('serving') or live} is serving; Ctrl-C ends")
            elif self._engine or engine == "waiting":
                self._tell(f"engine         {said}")
            self._engine, self._since_s, self._tell_at_s = said, now, now + PROGRESS_S
        elif engine in ("starting", "restarting") and now >= self._tell_at_s:
            lasts = f"for {now - self._since_s:.0f} s; it may take {self._start_timeout_s:g} s"
            self._tell(f"engine         {engine} {lasts} (chat.engine.start_timeout_s)")
            self._tell_at_s = now + PROGRESS_S

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def _ask(self, url: str) -> dict[str, Any]:
        if self._http is None:  # on this machine: a proxy of the environment is meant for the outside
            self._http = http.connect(url, trust_env=False, timeout=TIMEOUT_S)
        try:
            return self._http.get("/readyz").json()
        except (httpx.HTTPError, ValueError):  # the chat service restarts, or is busy: its exit is noticed elsewhere
            return {}
