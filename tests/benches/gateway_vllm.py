"""What the gateway costs where a real vLLM writes: `make bench BENCH=gateway_vllm`, `ARGS="--json"` for programs.

The chat service starts vLLM on the tiny model, as `rlhf-online up` does; 32 streams at once ask for answers of 100
tokens, in turns through the gateway and at the engine's own socket, which no client otherwise reaches. Directly they
are asked for twice: with the token ids and log-probabilities that the gateway asks for, since what it logs trains the
policy, and without. Nothing is pinned: vLLM takes both cores. Ratios are medians of those of each round.
"""

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any

import orjson
import uvloop

from rlhf_online.engine.child import socket_path
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from tests.benches.support import load
from tests.benches.support.figures import show
from tests.benches.support.load import HttpClient
from tests.benches.support.reports import note
from tests.benches.support.servers import ChatFolder, until_ready
from tests.support.engine import publish

AT_ONCE, TOKENS = 32, 100
CHAT = "/v1/chat/completions"
TOLD = {"logprobs": True, "top_logprobs": 0, "return_token_ids": True, "stream_options": {"include_usage": True}}


def request(headers: dict[str, str], **more: Any) -> bytes:
    messages = [{"role": "user", "content": "name three metal"}]
    body = {"messages": messages, "stream": True, "max_tokens": TOKENS, "ignore_eos": True, **more}
    return load.post(CHAT, orjson.dumps(body), headers)


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, float | int | str]:
    state = StateDir(folder / "state")
    model = folder / "base"
    write_tiny_model(model, weights_seed=None)
    publish(open_registry(state.versions), 0)
    engine = {"model": str(model), "max_model_len": 128, "kv_cache_gib": 0.25, "threads": 1}
    chat = ChatFolder(folder, engine)
    rates: dict[str, list[float]] = {"gateway": [], "vllm": [], "vllm_plain": []}
    with chat.serve(None) as server:
        until_ready(server, "/readyz", {})
        asked = {
            "gateway": (server.port, [request(chat.headers(person)) for person in range(1000)]),
            "vllm": (socket_path(state.run), [request({}, **TOLD)]),
            "vllm_plain": (socket_path(state.run), [request({})]),
        }
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            turn = number % len(asked)
            for name in (*list(asked)[turn:], *list(asked)[:turn]):
                client = HttpClient(*asked[name])
                answers, replies = await load.closed_loop(client.ask, at_once=AT_ONCE, seconds=options.seconds)
                await client.close()
                load.expect_none(replies)
                rates[name].append(answers * TOKENS)
    found: dict[str, float | int | str] = {"streams_at_once": AT_ONCE}
    found |= {f"{name}_tokens_per_s": round(statistics.median(values)) for name, values in rates.items()}
    for name in ("vllm", "vllm_plain"):
        ratios = [ours / theirs for ours, theirs in zip(rates["gateway"], rates[name], strict=True)]
        found[f"ratio_to_{name}"] = round(statistics.median(ratios), 3)
        found[f"ratio_to_{name}_range"] = f"{min(ratios):.3f}-{max(ratios):.3f}"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one measurement")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-gateway-") as folder:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure(options, Path(folder)))
    show(found, as_json=options.json)


if __name__ == "__main__":
    main()
