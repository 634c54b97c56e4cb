"""The routes of a vLLM server that the product uses.

It imports neither vllm nor torch. Every call is bounded in time. The routes that pause, load and probe are vLLM's
development routes: they are open to whoever reaches the engine's socket, so that socket lies in a folder of mode 0700
and no client ever gets its address.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from rlhf_online.engine.transport import EngineTransport
from rlhf_online.errors import EngineError

HEALTH_TIMEOUT_S = 10.0
METRICS_TIMEOUT_S = 5.0
LOAD_TIMEOUT_S = 600.0
PROBE_TIMEOUT_S = 300.0
PROBE_POINTS, TOP_LOGPROBS = 3, 20


class EngineClient(EngineTransport):
    """What vLLM's server can be asked for, one method a route; see `EngineTransport` for what they raise.

    Large because so many routes are used.
    """

    async def health(self) -> bool:
        """Whether vLLM says that its engine is alive."""
        try:
            timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S)
            async with self.session.get(f"{self.base}/health", timeout=timeout) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def metrics(self) -> str:
        """vLLM's own, as Prometheus' text."""
        return str(await self.call("GET", "/metrics", timeout_s=METRICS_TIMEOUT_S))

    async def pause(self, timeout_s: float) -> None:
        """Stop between two steps and keep the running requests; returns when no step runs any more."""
        await self.post("/pause?mode=keep", timeout_s=timeout_s)

    async def resume(self) -> None:
        """Go on with the requests that were kept."""
        await self.post("/resume")

    async def reload_weights(self, folder: Path) -> None:
        """Load all weights from the folder's safetensors, in place. Only while paused."""
        await self._rpc("load", {"weights_path": str(folder)}, timeout_s=LOAD_TIMEOUT_S)

    async def reset_prefix_cache(self) -> None:
        """Forget every cached key and value, the running requests' too: they are computed anew."""
        answer = await self.post("/reset_prefix_cache?reset_running_requests=true")
        if not (isinstance(answer, dict) and answer.get("success")):
            raise EngineError(f"the engine did not drop its prefix cache: it answered {answer}")

    async def set_version(self, version: str) -> None:
        """Tell the engine the name of the weights that it holds."""
        await self.post("/update_weight_version", {"new_version": version})

    async def version(self) -> str:
        """The name last given to `set_version`; vLLM's default before that."""
        answer = await self.call("GET", "/weight_info")
        with _answered("/weight_info"):
            return str(answer["weight_version"])

    async def model_name(self) -> str:
        """The name under which the base model is served."""
        names = await self._models()
        with _answered("/v1/models"):
            return names[0]

    async def load_lora(self, name: str, folder: Path) -> None:
        """Make the adapter in `folder` available as the model `name`.

        vLLM refuses a name that it holds. A version's name stands for the same weights for ever, so that is no error:
        a roll-back finds the version before still loaded, and a new host an external engine's adapters.
        """
        if name in await self._models():
            return
        body = {"lora_name": name, "lora_path": str(folder)}
        await self.post("/v1/load_lora_adapter", body, timeout_s=LOAD_TIMEOUT_S)

    async def replace_lora(self, name: str, folder: Path) -> None:
        """From its next step on the engine computes what asks for the adapter `name` with the one in `folder`.

        Requests in progress keep what the old one has computed for them: drop the caches.
        """
        body = {"lora_name": name, "lora_path": str(folder), "load_inplace": True}
        await self.post("/v1/load_lora_adapter", body, timeout_s=LOAD_TIMEOUT_S)

    async def group_by_adapter(self) -> None:
        """Before any adapter is loaded into an engine that computes on a CPU; see `worker.Probe`."""
        await self._rpc("group_by_adapter", {}, timeout_s=LOAD_TIMEOUT_S)

    async def unload_lora(self, name: str) -> None:
        """Forget an adapter; answers in progress under it are finished."""
        await self.post("/v1/unload_lora_adapter", {"lora_name": name})

    async def probe(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """log p(token i+1 | tokens 0..i) at temperature 1 of each sequence, NaN where it is not finite.

        Only while paused and after `reset_prefix_cache`.
        """
        answer = await self._rpc("probe", {"token_id_lists": [list(s) for s in sequences]}, timeout_s=PROBE_TIMEOUT_S)
        with _answered("/collective_rpc"):
            return [[math.nan if value is None else value for value in row] for row in answer[0]]

    async def probe_model(self, model: str, sequences: Sequence[Sequence[int]]) -> list[list[float | None]]:
        """As `probe` under an adapter's name, at PROBE_POINTS tokens of each sequence, through the normal queue.

        None where the engine does not tell: at the other tokens, and where a token is not among the TOP_LOGPROBS
        likeliest.
        vLLM's CPU kernel for adapters dies of prompt log-probs in a batch, so each token is asked for as the next one.
        """
        asked = [(row, at) for row, sequence in enumerate(sequences) for at in _spread(len(sequence))]
        body = {
            "model": model,
            "prompt": [list(sequences[row][:at]) for row, at in asked],
            "max_tokens": 1,
            "temperature": 1.0,
            "logprobs": TOP_LOGPROBS,
            "return_tokens_as_token_ids": True,
        }
        answer = await self.post("/v1/completions", body, timeout_s=PROBE_TIMEOUT_S)
        told: list[list[float | None]] = [[None] * (len(sequence) - 1) for sequence in sequences]
        with _answered("/v1/completions"):
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            for (row, at), choice in zip(asked, choices, strict=True):
                likely = _likely(choice["logprobs"])
                told[row][at - 1] = likely.get(sequences[row][at]) if likely else math.nan
        return told

    async def _models(self) -> list[str]:
        """Names that requests may give as their model: the base model's, then the adapters'."""
        answer = await self.call("GET", "/v1/models")
        with _answered("/v1/models"):
            return [str(model["id"]) for model in answer["data"]]

    async def _rpc(self, method: str, kwargs: dict[str, Any], *, timeout_s: float) -> list[Any]:
        answer = await self.post("/collective_rpc", {"method": method, "kwargs": kwargs}, timeout_s=timeout_s)
        with _answered("/collective_rpc"):
            return answer["results"]


@contextmanager
def _answered(route: str) -> Iterator[None]:
    """Reading an answer that may be no vLLM's: raises EngineError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(
            f"the engine's answer to {route} is not as vLLM's ({error!r}): is it a vLLM server?"
        ) from error


def _spread(length: int) -> list[int]:
    """At most PROBE_POINTS places of a sequence that has `length` tokens, evenly spread, the first token left out."""
    count = min(PROBE_POINTS, length - 1)
    return [1 + (length - 1) * number // count for number in range(count)]


def _likely(logprobs: dict[str, Any] | None) -> dict[int, float]:
    """{token id: log-prob} of the likeliest first tokens, {} if one is not finite; vLLM writes {"token_id:17": …}."""
    top = (logprobs or {}).get("top_logprobs") or [None]
    found = {int(name.removeprefix("token_id:")): value for name, value in (top[0] or {}).items()}
    return found if all(value is not None and math.isfinite(value) for value in found.values()) else {}
