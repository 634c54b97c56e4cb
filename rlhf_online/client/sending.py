"""A vote on its way: sent until it is on disk, always as the same event.

Each vote has an idempotency key, made once. So it is safe to send it again after whatever left open if it arrived: a
lost connection, a reply that never came, 429, or an error of the server's. What the service refuses is not sent again.
"""

import http.client
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rlhf_online.errors import InvalidInput, RlhfError, ServiceUnreachable
from rlhf_online.retry import Backoff

FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 8.0
ONE_ANSWER = ("thumb", "correction", "implicit", "withdrawal")
AGAIN = (408, 429, 500, 502, 503, 504)
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """A vote that is on disk. `event_id` is what an edit or a withdrawal names, `position` is where the log then stood.

    `answer` is one of the answers that it judges.
    """

    event_id: str
    position: Mapping[str, int]
    answer: Mapping[str, Any]


class Refused(RlhfError):
    """The service does not take it: HTTP `status`, the field at fault and the mistake in a word, if it says them."""

    def __init__(self, message: str, status: int, param: str | None, code: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


class NotSent(ServiceUnreachable):
    """It was tried as often as was allowed, and is not known to be on disk. `body` can be sent again, later: it is the
    same vote."""

    def __init__(self, message: str, body: dict[str, Any]) -> None:
        super().__init__(message)
        self.body = body


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Sends votes to the service whose OpenAI address is `url`, at most `tries` times each.

    A proxy of the environment is meant for the outside: it is not asked for this machine's own addresses.
    """

    url: str
    headers: Mapping[str, str]
    timeout_s: float
    tries: int
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise InvalidInput(f"{self.url!r} is no address: it looks like http://127.0.0.1:8000/v1")

    def send(self, body: dict[str, Any]) -> Vote:
        """Raises Refused and NotSent."""
        body = {"idempotency_key": secrets.token_hex(16), **body}
        backoff, failure = Backoff(FIRST_WAIT_S, LONGEST_WAIT_S), ""
        for number in range(self.tries):
            wait_s = backoff.advance()
            try:
                with self._open(body) as reply:
                    said = json.loads(reply.read())
                return Vote(event_id=said["event_id"], position=said["position"], answer=_answer(body))
            except urllib.error.HTTPError as error:
                with error:
                    failure, refused = _refusal(error)
                if error.code not in AGAIN:
                    raise refused from None
                wait_s = max(wait_s, min(_retry_after_s(error.headers.get("Retry-After")), LONGEST_WAIT_S))
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                failure = f"{type(error).__name__}: {error}"
            if number + 1 < self.tries:
                self.sleep(wait_s)
        raise NotSent(f"the vote is not known to be on disk after {self.tries} tries: {failure}", body)

    def _open(self, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/feedback",
            data=json.dumps(body).encode(),
            headers={**self.headers, "Content-Type": "application/json"},
        )
        local = urlsplit(self.url).hostname in LOOPBACK
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({} if local else None))
        return opener.open(request, timeout=self.timeout_s)


def _refusal(error: urllib.error.HTTPError) -> tuple[str, Refused]:
    try:
        said = json.loads(error.read())["error"]
        message, param, code = said["message"], said.get("param"), said.get("code")
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
        message, param, code = f"HTTP {error.code} without a reason", None, None
    return f"HTTP {error.code}, {message}", Refused(message, error.code, param, code)


def _retry_after_s(said: str | None) -> float:
    try:
        return max(0.0, float(said or 0))
    except ValueError:  # a date: none of ours
        return 0.0


def _answer(body: Mapping[str, Any]) -> Mapping[str, Any]:
    match body:
        case {"pairwise": {"chosen": answer}} | {"ranking": {"tiers": [[answer, *_], *_]}}:
            return answer
        case _:
            return next(body[kind]["answer"] for kind in ONE_ANSWER if kind in body)
