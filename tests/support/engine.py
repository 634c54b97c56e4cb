"""A real engine on the tiny model for tests: versions with a probe, a host that serves them, streams that watch it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pytest import MonkeyPatch
from transformers import LlamaForCausalLM

from rlhf_online.config import EngineSettings, SwapSettings
from rlhf_online.engine.host import EngineHost
from rlhf_online.models.loading import LOADING
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest, ProbeSequence
from rlhf_online.versions.registry import Registry
from tests.support.events import streamed

PROBE_TOKENS = ((1, 5, 9, 13, 2), (1, 30, 31, 32, 33, 34, 35, 36))


def recompute(folder: Path, token_ids: Sequence[int], temperature: float = 1.0) -> list[float]:
    """log p(token i+1 | tokens 0..i) by transformers: the oracle."""
    return recompute_all(folder, [token_ids], temperature)[0]


def recompute_all(folder: Path, sequences: Sequence[Sequence[int]], temperature: float = 1.0) -> list[list[float]]:
    """The same for several sequences."""
    with LOADING:
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = []
    for token_ids in sequences:
        with torch.inference_mode():
            logits_TV = model(torch.tensor([list(token_ids)])).logits[0, :-1] / temperature
        rows.append(logits_TV.log_softmax(-1).gather(1, torch.tensor(list(token_ids[1:]))[:, None])[:, 0].tolist())
    return rows


def publish(
    registry: Registry,
    folder_or_seed: Path | int,
    *,
    probe_tokens: Sequence[Sequence[int]] = PROBE_TOKENS,
    probe_error: float = 0.0,
    promote: bool = True,
) -> str:
    """A full version of the tiny model, with its probe (off by `probe_error`), live unless told otherwise."""
    version = registry.reserve("policy")
    staged = registry.stage(version)
    if isinstance(folder_or_seed, int):
        write_tiny_model(staged, weights_seed=folder_or_seed)
    else:
        for path in folder_or_seed.iterdir():
            if path.name != "manifest.json":
                (staged / path.name).write_bytes(path.read_bytes())
    probe = tuple(
        ProbeSequence(token_ids=tuple(tokens), logprobs=tuple(x + probe_error for x in row))
        for tokens, row in zip(probe_tokens, recompute_all(staged, probe_tokens), strict=True)
    )
    registry.publish(Manifest(version=version, tuning="full", probe=probe))
    if promote:
        registry.promote(version, reason="a test")
    return version


@asynccontextmanager
async def running_host(root: Path, model: Path | None = None, **engine_settings: Any) -> AsyncIterator[EngineHost]:
    """A host with its state below `root`, on the tiny model without weights unless `model` is given; not yet healthy.

    The registry is `host.registry`. Everything has ended when the block is left. There is no C++ compiler, as in an
    image, and nothing that one made before.
    """
    state = StateDir(root / "state")
    if model is None:
        model = root / "base"
        write_tiny_model(model, weights_seed=None)
    values = {"model": str(model), "max_model_len": 128, "max_num_seqs": 16, "kv_cache_gib": 0.1, "threads": 1}
    settings = EngineSettings(**(values | engine_settings))
    host = EngineHost(settings, SwapSettings(poll_s=0.05), open_registry(state.versions), state)
    with MonkeyPatch.context() as machine:
        machine.setenv("CXX", "no-such-compiler")
        machine.setenv("TORCHINDUCTOR_CACHE_DIR", str(root / "compiled"))
        running = asyncio.create_task(host.run())
        try:
            yield host
        finally:
            await host.close()
            await running


@dataclass
class Answer:
    """What a client of the engine saw of one answer, as far as it has come."""

    prompt_ids: tuple[int, ...]
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False


async def stream(
    host: EngineHost, answer: Answer, *, max_tokens: int = 110, temperature: float = 1.0, model: str = ""
) -> Answer:
    """Fill `answer` from a streamed completion that does not end before `max_tokens`; `model`: not by the live one."""
    body = {
        "model": model or host.model_name,
        "prompt": list(answer.prompt_ids),
        "stream": True,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "ignore_eos": True,
        "logprobs": 0,
        "return_token_ids": True,
    }
    async with host.client.session.post(host.client.base + "/v1/completions", json=body) as response:
        assert response.status == 200, await response.text()
        async for event in streamed(response):
            choice = event["choices"][0]
            answer.token_ids += choice["token_ids"]
            answer.logprobs += choice["logprobs"]["token_logprobs"]
    answer.finished = True
    return answer
