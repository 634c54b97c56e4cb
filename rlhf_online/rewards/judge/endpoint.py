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
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rlhf_online import sqlite
from rlhf_online.config.engine_args import LOW_PRIORITY
from rlhf_online.config.explain import masked
from rlhf_online.errors import InvalidInput
from rlhf_online.retry import Backoff
from rlhf_online.rewards.judge.settings import JudgeSettings
from rlhf_online.rewards.judge.verdicts import Doubt, Messages, Said

if TYPE_CHECKING:
    import httpx

TOP = 20
"""Tokens whose probabilities are asked for: the most that OpenAI's API gives."""
CHARACTERS_A_TOKEN = 4
"""Where the endpoint does not say how many tokens it took."""
REPLY_TOKENS = 4
"""Some tokenizers begin a reply with a space or a line."""
TEXT_TOKENS = 2048
LETTER_ASKED = {"max_tokens": REPLY_TOKENS, "temperature": 0, "logprobs": True, "top_logprobs": TOP}
MOST_BYTES = 1 << 20
"""Of a reply; what goes on is not read."""
MOST_DECLINED = 20
"""Questions that may be declined before one is answered: then it is not the questions that are wrong."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
LETTER = re.compile(r"\W*([AB])\W*")


T = TypeVar("T")


@dataclass(slots=True)
class _Form(Generic[T]):
    """What is asked for beside the messages, and how the reply is read. `plain`: the endpoint refused all but the
    messages."""

    asked: dict[str, Any]
    read: Callable[[dict[str, Any]], T | Doubt]
    plain: bool = False


class Endpoint:
    """Asks the endpoint in the settings. `tokens` are those used so far, which end at `max_tokens`; `spent` is what the
    day has cost so far, with earlier runs, and ends at `max_cost`. For one thread."""

    def __init__(
        self,
        settings: JudgeSettings,
        cache: "Cache",
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], str] = lambda: datetime.now(UTC).date().isoformat(),
    ) -> None:
        import httpx

        key = settings.key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if settings.url.startswith("unix:"):
            self._base, transport = "http://engine/v1", httpx.HTTPTransport(uds=settings.url.removeprefix("unix:"))
        else:
            self._base, transport = settings.url.rstrip("/"), None
        self._client = httpx.Client(headers=headers, timeout=settings.timeout_s, transport=transport)
        self._settings = settings
        self._cache = cache
        self._sleep = sleep
        self._clock = clock
        self._today = today
        self._due_s = clock()
        self._letter = _Form(LETTER_ASKED, read)
        self._text = _Form({"max_tokens": TEXT_TOKENS, "temperature": 0}, read_text)
        self._declined: int | None = 0
        """How many questions, as long as none was answered."""
        self.tokens = 0

    def ask(self, messages: Messages) -> Said | Doubt:
        """What the judge says. Raises InvalidInput where the endpoint refuses all questions for good."""
        digest = hashlib.sha256(json.dumps([self._settings.url, self._settings.model, messages]).encode()).hexdigest()
        if (known := self._cache.get(digest)) is not None:
            return known
        said = self._asked(messages, self._letter)
        if isinstance(said, Said):
            self._cache.put(digest, said)
        return said

    def write(self, messages: Messages) -> str | Doubt:
        """A text, which is kept nowhere. Raises InvalidInput as `ask` does."""
        return self._asked(messages, self._text)

    def _asked(self, messages: Messages, form: "_Form[T]") -> T | Doubt:
        if self.tokens >= self._settings.max_tokens or 0 < self._settings.max_cost <= self.spent:
            return Doubt("budget")
        self._wait()
        return self._ask(messages, form, plain=form.plain)

    @property
    def spent(self) -> float:
        """Today, in the currency of the prices."""
        return self._cache.spent(self._today())

    def _wait(self) -> None:
        """Until another question is due: a label takes two."""
        now_s = self._clock()
        if now_s < self._due_s:
            self._sleep(self._due_s - now_s)
        self._due_s = max(now_s, self._due_s) + 30 / self._settings.labels_per_minute

    def _ask(self, messages: Messages, form: "_Form[T]", *, plain: bool) -> T | Doubt:
        import httpx

        backoff, doubt = Backoff(FIRST_WAIT_S, LONGEST_WAIT_S), Doubt("away")
        for attempt in range(self._settings.tries):
            if attempt:
                self._sleep(backoff.advance())
            try:
                reply = self._post(messages, {} if plain else form.asked)
            except httpx.TimeoutException as error:  # what is written too late is written all the same
                self._count(len(error.request.content) // CHARACTERS_A_TOKEN, form.asked["max_tokens"])
                doubt = Doubt("late")
                continue
            except (httpx.HTTPError, httpx.InvalidURL):
                doubt = Doubt("away")
                continue
            if reply.status_code == 429 or reply.status_code >= 500:
                doubt = Doubt("away")
            elif reply.is_success:
                form.plain, self._declined = plain, None
                return self._read(reply, form)
            elif reply.status_code in (400, 422) and not plain:
                return self._ask(messages, form, plain=True)
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
        raise InvalidInput(f"the model at {url} refuses the question ({reply.status_code}): {said}")

    def _post(self, messages: Messages, asked: dict[str, Any]) -> "httpx.Response":
        """Its reply, or the beginning of one of more than MOST_BYTES. Raises httpx.TimeoutException for one that is not
        there in time, however steadily it comes."""
        import httpx

        body = {"model": self._settings.model, "messages": messages, **asked}
        if self._settings.url.startswith("unix:"):
            body["priority"] = LOW_PRIORITY
        ends_s, content = time.monotonic() + self._settings.timeout_s, b""
        with self._client.stream("POST", f"{self._base}/chat/completions", json=body) as reply:
            for piece in reply.iter_bytes():
                content += piece
                if time.monotonic() > ends_s:
                    raise httpx.ReadTimeout("the reply takes too long", request=reply.request)
                if len(content) > MOST_BYTES:
                    break
            return httpx.Response(reply.status_code, content=content, request=reply.request)

    def _read(self, reply: "httpx.Response", form: "_Form[T]") -> T | Doubt:
        used = [len(each) // CHARACTERS_A_TOKEN for each in (reply.request.content, reply.content)]
        try:
            values = reply.json()
            used = _usage(values) or used
            return form.read(values["choices"][0])
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
            return Doubt("prose")
        finally:
            self._count(*used)

    def _count(self, prompt_tokens: int, answer_tokens: int) -> None:
        self.tokens += prompt_tokens + answer_tokens
        self._cache.spend(self._today(), self._settings.cost(prompt_tokens, answer_tokens))

    def close(self) -> None:
        """End the connection."""
        self._client.close()


def _usage(reply: dict[str, Any]) -> list[int]:
    """Tokens of the prompt and of the answer, as the endpoint says; none where it does not. What it says of both
    together counts as the answer's, the dearer as a rule."""
    said = reply.get("usage") or {}
    total, prompt = (int(said.get(name) or 0) for name in ("total_tokens", "prompt_tokens"))
    answer = int(said.get("completion_tokens") or 0) or total - prompt
    return [prompt, answer] if min(prompt, answer) >= 0 and prompt + answer > 0 else []


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


def read_text(choice: dict[str, Any]) -> str | Doubt:
    """The text of a choice, if it was ended. Raises as `read` does."""
    text = choice["message"]["content"]
    if choice.get("finish_reason") == "length":
        return Doubt("cut")
    return text if isinstance(text, str) and text.strip() else Doubt("prose")


class Cache:
    """Replies by the digests of questions, which votes were taken, and what each day has cost, in a SQLite file; losing
    it costs questions.

    For one thread.
    """

    def __init__(self, path: Path) -> None:
        """Raises ReadModelUnavailable."""
        self._path = path
        with sqlite.usable(path):
            self._database: sqlite3.Connection = sqlite.connect(path, synchronous="NORMAL")
            self._database.execute("CREATE TABLE IF NOT EXISTS said (digest TEXT PRIMARY KEY, a REAL, b REAL)")
            self._database.execute("CREATE TABLE IF NOT EXISTS given (vote TEXT PRIMARY KEY)")
            self._database.execute("CREATE TABLE IF NOT EXISTS spent (day TEXT PRIMARY KEY, cost REAL)")

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

    def spent(self, day: str) -> float:
        with sqlite.usable(self._path):
            found = self._database.execute("SELECT cost FROM spent WHERE day = ?", (day,)).fetchone()
        return found[0] if found else 0.0

    def spend(self, day: str, cost: float) -> None:
        with sqlite.usable(self._path):
            query = "INSERT INTO spent VALUES (?, ?) ON CONFLICT DO UPDATE SET cost = cost + excluded.cost"
            self._database.execute(query, (day, cost))

    def close(self) -> None:
        self._database.close()
