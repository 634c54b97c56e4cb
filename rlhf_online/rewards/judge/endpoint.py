"""The endpoint of a judge: one question, one letter, with the probabilities of its tokens where it gives them.

What was answered once is not asked again: replies are kept by the digest of the question, without its text.
"""

import hashlib
import json
import math
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_online import sqlite
from rlhf_online.config.explain import masked
from rlhf_online.errors import InvalidInput
from rlhf_online.retry import Backoff
from rlhf_online.rewards.judge.settings import JudgeSettings
from rlhf_online.rewards.judge.verdicts import Doubt, Messages, Said

if TYPE_CHECKING:
    import httpx

TOP = 20
"""Tokens whose probabilities are asked for: the most that OpenAI's API gives."""
REPLY_TOKENS = 4
"""Some tokenizers begin a reply with a space or a line."""
MOST_BYTES = 1 << 20
"""Of a reply; what goes on is not read."""
MOST_DECLINED = 20
"""Questions that may be declined before one is answered: then it is not the questions that are wrong."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
LETTER = re.compile(r"\W*([AB])\W*")


class Endpoint:
    """Asks the endpoint in the settings. `tokens` are those used so far, which end at `max_tokens`. For one thread."""

    def __init__(
        self,
        settings: JudgeSettings,
        cache: "Cache",
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        import httpx

        key = settings.key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=settings.timeout_s)
        self._settings = settings
        self._cache = cache
        self._sleep = sleep
        self._clock = clock
        self._due_s = clock()
        self._plain = False
        """Whether the endpoint refused more than the model and the messages, log-probabilities among it."""
        self._declined: int | None = 0
        """How many questions, as long as none was answered."""
        self.tokens = 0

    def ask(self, messages: Messages) -> Said | Doubt:
        """What the judge says. Raises InvalidInput where the endpoint refuses all questions for good."""
        digest = hashlib.sha256(json.dumps([self._settings.url, self._settings.model, messages]).encode()).hexdigest()
        if (known := self._cache.get(digest)) is not None:
            return known
        if self.tokens >= self._settings.max_tokens:
            return Doubt("budget")
        self._wait()
        said = self._ask(messages, plain=self._plain)
        if isinstance(said, Said):
            self._cache.put(digest, said)
        return said

    def _wait(self) -> None:
        """Until another question is due: a label takes two."""
        now_s = self._clock()
        if now_s < self._due_s:
            self._sleep(self._due_s - now_s)
        self._due_s = max(now_s, self._due_s) + 30 / self._settings.labels_per_minute

    def _ask(self, messages: Messages, *, plain: bool) -> Said | Doubt:
        import httpx

        backoff, doubt = Backoff(FIRST_WAIT_S, LONGEST_WAIT_S), Doubt("away")
        for attempt in range(self._settings.tries):
            if attempt:
                self._sleep(backoff.advance())
            try:
                reply = self._post(messages, plain=plain)
            except httpx.TimeoutException:
                doubt = Doubt("late")
                continue
            except (httpx.HTTPError, httpx.InvalidURL):
                doubt = Doubt("away")
                continue
            if reply.status_code == 429 or reply.status_code >= 500:
                doubt = Doubt("away")
            elif reply.is_success:
                self._plain, self._declined = plain, None
                return self._read(reply)
            elif reply.status_code in (400, 422) and not plain:
                return self._ask(messages, plain=True)
            else:
                return self._refused(reply)
        return doubt

    def _refused(self, reply: "httpx.Response") -> Doubt:
        """Raises InvalidInput, unless it may be for what this question holds: its length, say."""
        if reply.status_code in (400, 413, 422):
            if self._declined is None:
                return Doubt("declined")
            self._declined += 1
            if self._declined < MOST_DECLINED:
                return Doubt("declined")
        url, said = masked(self._settings.url), reply.text[:300]
        raise InvalidInput(f"the judge at {url} refuses the question ({reply.status_code}): {said}")

    def _post(self, messages: Messages, *, plain: bool) -> "httpx.Response":
        """Its reply, or the beginning of one of more than MOST_BYTES. Raises httpx.TimeoutException for one that is not
        there in time, however steadily it comes."""
        import httpx

        body: dict[str, Any] = {"model": self._settings.model, "messages": messages}
        if not plain:
            body |= {"max_tokens": REPLY_TOKENS, "temperature": 0, "logprobs": True, "top_logprobs": TOP}
        ends_s, content = time.monotonic() + self._settings.timeout_s, b""
        url = f"{self._settings.url.rstrip('/')}/chat/completions"
        with self._client.stream("POST", url, json=body) as reply:
            for piece in reply.iter_bytes():
                content += piece
                if time.monotonic() > ends_s:
                    raise httpx.ReadTimeout("the reply takes too long", request=reply.request)
                if len(content) > MOST_BYTES:
                    break
            return httpx.Response(reply.status_code, content=content, request=reply.request)

    def _read(self, reply: "httpx.Response") -> Said | Doubt:
        used = 0
        try:
            values = reply.json()
            used = int((values.get("usage") or {}).get("total_tokens") or 0)
            return read(values["choices"][0])
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
            return Doubt("prose")
        finally:
            self.tokens += used if used > 0 else (len(reply.request.content) + len(reply.content)) // 4

    def close(self) -> None:
        """End the connection."""
        self._client.close()


def read(choice: dict[str, Any]) -> Said | Doubt:
    """What a choice of a reply says: the probabilities of the first token that is a letter, or else the letter.

    Raises LookupError, TypeError, ValueError or AttributeError for what is no choice.
    """
    for token in (choice.get("logprobs") or {}).get("content") or ():
        if token["token"].strip():
            mass = {"A": 0.0, "B": 0.0}
            for other in token["top_logprobs"] or [token]:
                if match := LETTER.fullmatch(other["token"]):
                    mass[match[1]] += math.exp(min(float(other["logprob"]), 0.0))
            if not all(map(math.isfinite, mass.values())):
                return Doubt("prose")
            return Said(min(mass["A"], 1.0), min(mass["B"], 1.0))
    if match := LETTER.fullmatch(choice["message"]["content"] or ""):
        return Said(float(match[1] == "A"), float(match[1] == "B"))
    return Doubt("prose")


class Cache:
    """Replies by the digests of questions, and which votes were taken, in a SQLite file; losing it costs questions.

    For one thread.
    """

    def __init__(self, path: Path) -> None:
        """Raises ReadModelUnavailable."""
        self._path = path
        with sqlite.usable(path):
            self._database: sqlite3.Connection = sqlite.connect(path, synchronous="NORMAL")
            self._database.execute("CREATE TABLE IF NOT EXISTS said (digest TEXT PRIMARY KEY, a REAL, b REAL)")
            self._database.execute("CREATE TABLE IF NOT EXISTS given (vote TEXT PRIMARY KEY)")

    def get(self, digest: str) -> Said | None:
        with sqlite.usable(self._path):
            found = self._database.execute("SELECT a, b FROM said WHERE digest = ?", (digest,)).fetchone()
        return None if found is None else Said(*found)

    def put(self, digest: str, said: Said) -> None:
        with sqlite.usable(self._path):
            self._database.execute("INSERT OR REPLACE INTO said VALUES (?, ?, ?)", (digest, said.a, said.b))

    def given(self, vote: str) -> bool:
        """Whether the vote with this idempotency key was taken."""
        with sqlite.usable(self._path):
            return bool(self._database.execute("SELECT 1 FROM given WHERE vote = ?", (vote,)).fetchone())

    def give(self, vote: str) -> None:
        with sqlite.usable(self._path):
            self._database.execute("INSERT OR IGNORE INTO given VALUES (?)", (vote,))

    def close(self) -> None:
        self._database.close()
