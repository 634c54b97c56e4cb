"""A stand-in for vLLM on a unix socket: it notes every call in order, and holds "weights" that are a folder's name.

Its log-probs are those of the manifest beside the loaded weights, so that a probe passes; the fields of `FakeEngine`
make it fail in every way that the real one can.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web


@dataclass
class FakeEngine:
    """`calls` are the names of what was asked, with the version where there is one."""

    calls: list[str] = field(default_factory=list)
    url: str = ""
    healthy: bool = True
    holds: str = "dummy"
    adapters: dict[str, Path] = field(default_factory=dict)
    folder: Path = Path()
    pause_delay_s: float = 0.0
    refuse_load: set[str] = field(default_factory=set)
    probe_error: dict[str, float] = field(default_factory=dict)
    not_finite: set[str] = field(default_factory=set)
    reset_succeeds: bool = True

    def logprobs(self, folder: Path, sequences: list[list[int]]) -> list[list[float | None]]:
        name = folder.name
        if name in self.not_finite:
            return [[None] * (len(tokens) - 1) for tokens in sequences]
        manifest = folder / "manifest.json"
        probe = json.loads(manifest.read_text())["probe"] if manifest.exists() else []
        known = {tuple(item["token_ids"]): item["logprobs"] for item in probe}
        error = self.probe_error.get(name, 0.0)
        return [[x + error for x in known.get(tuple(t), [-1.0] * (len(t) - 1))] for t in sequences]

    async def pause(self, request: web.Request) -> web.Response:
        assert request.query["mode"] == "keep"
        self.calls.append("pause")
        await asyncio.sleep(self.pause_delay_s)
        return web.json_response({"status": "paused"})

    async def resume(self, request: web.Request) -> web.Response:
        self.calls.append("resume")
        return web.json_response({"status": "resumed"})

    async def reset(self, request: web.Request) -> web.Response:
        assert request.query["reset_running_requests"] == "true"
        self.calls.append("reset")
        return web.json_response({"success": self.reset_succeeds})

    async def name(self, request: web.Request) -> web.Response:
        self.calls.append(f"name {(await request.json())['new_version']}")
        return web.json_response({"success": True})

    async def rpc(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["method"] == "load":
            folder = Path(body["kwargs"]["weights_path"])
            self.calls.append(f"load {folder.name}")
            if folder.name in self.refuse_load:
                return web.json_response({"error": {"message": "cannot load"}}, status=500)
            self.holds, self.folder = folder.name, folder
            return web.json_response({"results": [None]})
        assert body["method"] == "probe"
        self.calls.append(f"probe {self.holds}")
        return web.json_response({"results": [self.logprobs(self.folder, body["kwargs"]["token_id_lists"])]})

    async def load_lora(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.calls.append(f"load_lora {body['lora_name']}")
        if body["lora_name"] in self.refuse_load:
            return web.json_response({"error": {"message": "cannot load"}}, status=400)
        if body["lora_name"] in self.adapters:  # as vLLM does
            return web.json_response({"error": {"message": "has already been loaded"}}, status=400)
        self.adapters[body["lora_name"]] = Path(body["lora_path"])
        return web.Response(text="Success")

    async def unload_lora(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        self.calls.append(f"unload_lora {name}")
        if self.adapters.pop(name, None) is None:
            return web.json_response({"error": {"message": "no such adapter"}}, status=404)
        return web.Response(text="Success")

    async def completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.calls.append(f"probe {body['model']}")
        folder = self.adapters.get(body["model"], Path())
        tops = [self.next_token(folder, prefix) for prefix in body["prompt"]]
        choices = [{"index": index, "logprobs": {"top_logprobs": [top]}} for index, top in enumerate(tops)]
        return web.json_response({"choices": choices})

    def next_token(self, folder: Path, prefix: list[int]) -> dict[str, float | None]:
        """The likeliest next tokens: those with which the manifest's sequences go on."""
        manifest = folder / "manifest.json"
        probe = json.loads(manifest.read_text())["probe"] if manifest.exists() else []
        told: dict[str, float | None] = {"token_id:0": -1.0, "token_id:1": -1.0}
        for item in probe:
            tokens = item["token_ids"]
            if tokens[: len(prefix)] == prefix and len(tokens) > len(prefix):
                told[f"token_id:{tokens[len(prefix)]}"] = self.logprobs(folder, [tokens])[0][len(prefix) - 1]
        return dict.fromkeys(told) if folder.name in self.not_finite else told

    async def health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in ("base", *self.adapters)]})


@asynccontextmanager
async def fake_engine(folder: Path) -> AsyncIterator[FakeEngine]:
    """A running fake whose socket lies in `folder`."""
    fake = FakeEngine()
    app = web.Application()
    app.add_routes(
        [
            web.post("/pause", fake.pause),
            web.post("/resume", fake.resume),
            web.post("/reset_prefix_cache", fake.reset),
            web.post("/update_weight_version", fake.name),
            web.post("/collective_rpc", fake.rpc),
            web.post("/v1/load_lora_adapter", fake.load_lora),
            web.post("/v1/unload_lora_adapter", fake.unload_lora),
            web.post("/v1/completions", fake.completions),
            web.get("/health", fake.health),
            web.get("/v1/models", fake.models),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    socket = folder / "fake.sock"
    await web.UnixSite(runner, str(socket)).start()
    fake.url = f"unix:{socket}"
    try:
        yield fake
    finally:
        await runner.cleanup()
