"""Fresh answers to logged prompts, by the weights that serve, through the chat service at low priority.

The trainer samples nowhere else: what it learns from was written by the engine, with the engine's own log-probs.
"""

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import httpx
import structlog

from rlhf_online import http, tracing
from rlhf_online.errors import EngineUnavailable, InvalidInput
from rlhf_online.retry import Backoff
from rlhf_online.rollout.types import Rollout

ANSWERS_PER_REQUEST = 128
REQUEST_TIMEOUT_S = 600.0
LATER = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that another try may turn into an answer: loading, swapping, busy, restarting."""


class Sampler:
    """Asks the chat service at `chat_url` with the operator's credential `token`.

    `eos_ids` tell an answer that ended by itself from one that was cut. `pause` is called between two tries with the
    seconds to wait, and returns True to give up.
    """

    def __init__(
        self, chat_url: str, token: str, eos_ids: Collection[int], *, pause: Callable[[float], bool] | None = None
    ) -> None:
        self._url = chat_url
        self._eos_ids = frozenset(eos_ids)
        self._pause = pause or _sleep
        headers = {"Authorization": f"Bearer {token}"}
        # The chat service is internal: proxies of the environment are for other hosts.
        self._client = http.connect(chat_url, headers=headers, timeout=REQUEST_TIMEOUT_S, trust_env=False)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def sample(
        self,
        prompts: Sequence[tuple[int, ...]],
        n: int,
        max_tokens: int,
        temperature: float,
        *,
        retry_s: float = 60.0,
    ) -> list[Rollout]:
        """`n` answers to each of `prompts` (token ids), by the version that serves.

        A request that fails for now is tried again for `retry_s` seconds; prompts that the chat service will never
        take (too long for its engine) are left out and logged.
        Raises EngineUnavailable, and InvalidInput if the credential is refused.
        """
        rollouts: list[Rollout] = []
        step = max(1, ANSWERS_PER_REQUEST // n)
        for start in range(0, len(prompts), step):
            chunk = prompts[start : start + step]
            body: dict[str, Any] = {
                "prompts": chunk, "n": n, "max_tokens": max_tokens, "temperature": temperature,
            }  # fmt: skip
            if reply := self._post(body, retry_s):
                rollouts += self._rollouts(chunk, reply, temperature, f"fresh-{start}")
        return rollouts

    def serving(self, prompt: tuple[int, ...]) -> str:
        """The policy version that serves now. Raises EngineUnavailable, InvalidInput."""
        reply = self._try({"prompts": [prompt], "n": 1, "max_tokens": 1, "temperature": 1.0})
        return reply["policy_version"] if reply else ""

    def _rollouts(
        self, prompts: Sequence[tuple[int, ...]], reply: dict[str, Any], temperature: float, name: str
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

    def _post(self, body: dict[str, Any], retry_s: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + retry_s
        backoff = Backoff(0.2, 5.0)
        while True:
            try:
                return self._try(body)
            except EngineUnavailable:
                wait_s = backoff.advance()
                if time.monotonic() + wait_s > deadline or self._pause(wait_s):
                    raise

    def _try(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """The reply; None if the chat service will never answer this request."""
        try:
            traced = {tracing.HEADER: current} if (current := tracing.current()) else {}
            response = self._client.post("/v1/rollouts", json=body, headers=traced)
            if response.is_success:
                return response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise EngineUnavailable(f"the chat service at {self._url} does not answer: {error}") from error
        status, said = response.status_code, response.text[:500]
        if status in LATER:
            raise EngineUnavailable(f"the chat service gave no rollouts: HTTP {status}: {said}")
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
