"""Fresh answers to logged prompts, by the weights that serve, through the chat service at low priority.

The trainer samples nowhere else: what it learns from was written by the engine, with the engine's own log-probs.

Prompts go in small requests, so many of them at once that the engine has AHEAD times as many answers to write as it can
write together: of a request that is under way most answers are done, and its longest is waited for, while others take
the places of those. What waits there waits behind people. How many it can write the chat service says with each reply.
"""

import copy
import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import structlog

from rlhf_online import http, tracing
from rlhf_online.errors import EngineUnavailable, InvalidInput, UnknownVersion
from rlhf_online.retry import Backoff
from rlhf_online.rollout.types import Rollout

Tokens = tuple[int, ...]
Part = tuple[Sequence[Tokens], list[Rollout]]
"""Prompts, and the answers to them."""

ANSWERS_PER_REQUEST = 16
ANSWERS_AT_ONCE = 64
"""What an engine writes together, until a reply has said so."""
AHEAD = 3
"""With exponentially distributed lengths its places are then as full as they can be; with 1.25 they were half empty."""
REQUEST_TIMEOUT_S = 600.0
LATER = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that another try may turn into an answer: loading, swapping, busy, restarting."""


class Sampler:
    """Asks the chat service at `chat_url` with the operator's credential `token`.

    `eos_ids` tell an answer that ended by itself from one that was cut. `pause` is called between two tries with the
    seconds to wait, and returns True to give up. `ca_file` are the authorities that vouch for the chat service; by
    default those that the system knows.
    """

    def __init__(
        self,
        chat_url: str,
        token: str,
        eos_ids: Collection[int],
        *,
        pause: Callable[[float], bool] | None = None,
        ca_file: str = "",
    ) -> None:
        """Raises ConfigError for a `ca_file` that cannot be used."""
        self._url = chat_url
        self._eos_ids = frozenset(eos_ids)
        self._pause = pause or _sleep
        self._at_once = ANSWERS_AT_ONCE
        self.version = ""
        """Which is asked for; "" for the live one."""
        self._requests = itertools.count()
        headers = {"Authorization": f"Bearer {token}"}
        # The chat service is internal: proxies of the environment are for other hosts.
        trusted: dict[str, Any] = {"verify": http.trusting(ca_file)} if ca_file else {}
        self._client = http.connect(chat_url, headers=headers, timeout=REQUEST_TIMEOUT_S, trust_env=False, **trusted)

    def of(self, version: str) -> "Sampler":
        """One over the same connection that asks for a version which is held beside the live one, an audience's."""
        other = copy.copy(self)
        other.version = version
        return other

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def sample(
        self, prompts: Sequence[Tokens], n: int, max_tokens: int, temperature: float, *, retry_s: float = 60.0
    ) -> list[Rollout]:
        """`n` answers to each of `prompts` (token ids), by the version that serves: what `stream` gives, as one."""
        parts = self.stream(prompts, n, max_tokens, temperature, retry_s=retry_s)
        return [rollout for _, rollouts in parts for rollout in rollouts]

    def stream(
        self, prompts: Sequence[Tokens], n: int, max_tokens: int, temperature: float, *, retry_s: float = 60.0
    ) -> Iterator[Part]:
        """The same in parts, in the order of the prompts: all that has come since the last one, while the rest is being
        written.

        A request that fails for now is tried again for `retry_s` seconds; prompts that the chat service will never
        take (too long for its engine) are left out and logged.
        Raises EngineUnavailable, and InvalidInput if the credential is refused.
        """
        step = max(1, ANSWERS_PER_REQUEST // n)
        traceparent = tracing.current()

        def part(start: int, number: int) -> Part:
            asked = prompts[start : start + step]
            body: dict[str, Any] = {
                "prompts": asked, "n": n, "max_tokens": max_tokens, "temperature": temperature,
            }  # fmt: skip
            reply = self._post(body, retry_s, traceparent)
            return asked, self._rollouts(asked, reply, temperature, f"fresh-{number}") if reply else []

        with ThreadPoolExecutor(-(-AHEAD * self._at_once // (n * step)), "sampler") as threads:
            coming = deque(threads.submit(part, start, next(self._requests)) for start in range(0, len(prompts), step))
            try:
                while coming:
                    ready = [coming.popleft().result()]
                    while coming and coming[0].done() and not coming[0].exception():
                        ready.append(coming.popleft().result())
                    yield [prompt for asked, _ in ready for prompt in asked], [r for _, found in ready for r in found]
            finally:
                for each in coming:
                    each.cancel()

    def serving(self, prompt: Tokens) -> str:
        """The policy version that serves now. Raises EngineUnavailable, InvalidInput."""
        body = {"prompts": [prompt], "n": 1, "max_tokens": 1, "temperature": 1.0}
        reply = self._try(body, tracing.current())
        return reply["policy_version"] if reply else ""

    def _rollouts(
        self, prompts: Sequence[Tokens], reply: dict[str, Any], temperature: float, name: str
    ) -> list[Rollout]:
        return [
            Rollout(
                rollout_id=f"{name}-{row}-{column}",
                prompt_token_ids=tuple(prompt),
                token_ids=tuple(answer["token_ids"]),
                logprobs=tuple(answer["logprobs"]),
                policy_version=reply["policy_version"],
                temperature=temperature,
                finished=bool(self._eos_ids.intersection(answer["token_ids"][-1:])),
            )
            for row, (prompt, answers) in enumerate(zip(prompts, reply["results"], strict=True))
            for column, answer in enumerate(answers)
        ]

    def _post(self, body: dict[str, Any], retry_s: float, traceparent: str) -> dict[str, Any] | None:
        deadline = time.monotonic() + retry_s
        backoff = Backoff(0.2, 5.0)
        while True:
            try:
                return self._try(body, traceparent)
            except EngineUnavailable:
                wait_s = backoff.advance()
                if time.monotonic() + wait_s > deadline or self._pause(wait_s):
                    raise

    def _try(self, body: dict[str, Any], traceparent: str) -> dict[str, Any] | None:
        """The reply; None if the chat service will never answer this request."""
        try:
            traced = {tracing.HEADER: traceparent} if traceparent else {}
            body = {**body, "model": self.version} if self.version else body
            response = self._client.post("/v1/rollouts", json=body, headers=traced)
            if response.is_success:
                reply = response.json()
                self._at_once = int(reply.get("max_num_seqs", self._at_once))  # earlier releases do not say it
                return reply
        except (httpx.HTTPError, ValueError) as error:
            raise EngineUnavailable(f"the chat service at {self._url} does not answer: {error}") from error
        status, said = response.status_code, response.text[:500]
        if status in LATER:
            raise EngineUnavailable(f"the chat service gave no rollouts: HTTP {status}: {said}")
        if status == 404 and self.version:
            raise UnknownVersion(f"the chat service does not hold {self.version}: {said}")
        if status in (401, 403, 404):
            raise InvalidInput(
                f"the chat service at {self._url} refused the trainer: HTTP {status}: {said}: are chat_url and "
                "state_dir those of this chat service?"
            )
        structlog.get_logger().error("prompts refused", prompts=len(body["prompts"]), status=status)
        return None


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
