"""A stand-in for vLLM's server on a unix socket: the routes that the product uses, failing on demand.

It holds "weights" that are a folder's name. Their log-probs are those of the manifest beside them, so that a probe
passes. `FakeGeneration` is the half that writes.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.fake_generation import Answers, FakeGeneration


class FakeVllm(FakeGeneration):
    """`calls` are the control routes that were used, in order, each with its version where it has one.

    Faults: `refuse_load`, `not_finite` and `probe_error` (nats) go by the version's name.
    """

    def __init__(self, answers: Answers | None = None) -> None:
        super().__init__(answers)
        self.calls: list[str] = []
        self.url = ""
        self.holds = "dummy"
        self.adapters: dict[str, Path] = {}
        self.healthy = True
        self.metrics = '# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine="0"} 3.0\n'
        self.pause_delay_s = 0.0
        self.refuse_load: set[str] = set()
        self.dies_of: set[str] = set()
        self.probe_error: dict[str, float] = {}
        self.not_finite: set[str] = set()
        self.reset_succeeds = True
        self.our_worker = True
        self.grouped = 0
        self._folder = Path()
        self._runner: web.AppRunner | None = None

    async def start(self, socket: Path) -> None:
        app = web.Application(client_max_size=16 << 20)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.get("/v1/models", self._models),
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/completions", self._probe_or_write),
                web.post("/pause", self._pause),
                web.post("/resume", self._resume),
                web.post("/reset_prefix_cache", self._reset),
                web.post("/update_weight_version", self._name),
                web.post("/collective_rpc", self._rpc),
                web.post("/v1/load_lora_adapter", self._load_lora),
                web.post("/v1/unload_lora_adapter", self._unload_lora),
            ]
        )
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(socket)).start()
        self.url = f"unix:{socket}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _pause(self, request: web.Request) -> web.Response:
        assert request.query["mode"] == "keep"
        self.calls.append("pause")
        await asyncio.sleep(self.pause_delay_s)
        await self.pause()
        return web.json_response({"status": "paused"})

    async def _resume(self, request: web.Request) -> web.Response:
        self.calls.append("resume")
        await self.resume()
        return web.json_response({"status": "resumed"})

    async def _reset(self, request: web.Request) -> web.Response:
        assert request.query["reset_running_requests"] == "true"
        self.calls.append("reset")
        return web.json_response({"success": self.reset_succeeds})

    async def _name(self, request: web.Request) -> web.Response:
        self.calls.append(f"name {(await request.json())['new_version']}")
        return web.json_response({"success": True})

    async def _rpc(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["method"] == "load":
            folder = Path(body["kwargs"]["weights_path"])
            self.calls.append(f"load {folder.name}")
            if folder.name in self.refuse_load:
                return web.json_response({"error": {"message": "cannot load"}}, status=500)
            self.holds, self._folder = folder.name, folder
            return web.json_response({"results": [None]})
        if body["method"] == "group_by_adapter":
            self.grouped += 1
            return web.json_response({"results": [None]}, status=200 if self.our_worker else 500)
        assert body["method"] == "probe"
        self.calls.append(f"probe {self.holds}")
        return web.json_response({"results": [self._logprobs(self._folder, body["kwargs"]["token_id_lists"])]})

    async def _load_lora(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.calls.append(f"load_lora {body['lora_name']}")
        if body.get("load_inplace"):
            self.calls[-1] = f"replace_lora {body['lora_name']} by {Path(body['lora_path']).name}"
        if body["lora_name"] in self.dies_of and request.transport is not None:
            request.transport.abort()
            return web.Response()
        if body["lora_name"] in self.refuse_load:  # 500 for whatever vLLM cannot serve: DoRA, biases, too large a rank
            return web.json_response({"error": {"message": "cannot load"}}, status=500)
        if body["lora_name"] in self.adapters and not body.get("load_inplace"):  # as vLLM does
            return web.json_response({"error": {"message": "has already been loaded"}}, status=400)
        self.adapters[body["lora_name"]] = Path(body["lora_path"])
        return web.Response(text="Success")

    async def _unload_lora(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        self.calls.append(f"unload_lora {name}")
        if self.adapters.pop(name, None) is None:
            return web.json_response({"error": {"message": "no such adapter"}}, status=404)
        return web.Response(text="Success")

    async def _probe_or_write(self, request: web.Request) -> web.StreamResponse:
        """Only people's requests are streamed; of the others only a probe asks which tokens were likely."""
        body = await request.json()
        if body.get("stream"):
            return await self.text(request)
        if not body["logprobs"]:
            return await self.completions(request)
        self.calls.append(f"probe {body['model']}")
        folder = self.adapters.get(body["model"], Path())
        tops = [self._next_token(folder, prefix) for prefix in body["prompt"]]
        choices = [{"index": index, "logprobs": {"top_logprobs": [top]}} for index, top in enumerate(tops)]
        return web.json_response({"choices": choices})

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=self.metrics)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in ("base", *self.adapters)]})

    def _logprobs(self, folder: Path, sequences: list[list[int]]) -> list[list[float | None]]:
        name = folder.name
        if name in self.not_finite:
            return [[None] * (len(tokens) - 1) for tokens in sequences]
        known = {tuple(item["token_ids"]): item["logprobs"] for item in _probe(folder)}
        error = self.probe_error.get(name, 0.0)
        return [[x + error for x in known.get(tuple(t), [-1.0] * (len(t) - 1))] for t in sequences]

    def _next_token(self, folder: Path, prefix: list[int]) -> dict[str, float | None]:
        """The likeliest next tokens: those with which the manifest's sequences go on."""
        told: dict[str, float | None] = {"token_id:0": -1.0, "token_id:1": -1.0}
        for item in _probe(folder):
            tokens = item["token_ids"]
            if tokens[: len(prefix)] == prefix and len(tokens) > len(prefix):
                told[f"token_id:{tokens[len(prefix)]}"] = self._logprobs(folder, [tokens])[0][len(prefix) - 1]
        return dict.fromkeys(told) if folder.name in self.not_finite else told


def _probe(folder: Path) -> list[dict[str, Any]]:
    manifest = folder / "manifest.json"
    return json.loads(manifest.read_text())["probe"] if manifest.exists() else []


@asynccontextmanager
async def fake_vllm(folder: Path) -> AsyncIterator[FakeVllm]:
    """A running one whose socket lies in `folder`."""
    engine = FakeVllm()
    await engine.start(folder / "engine.sock")
    try:
        yield engine
    finally:
        await engine.stop()
