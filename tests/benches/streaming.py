"""How evenly an answer's tokens reach their reader: the engine's processes at equal priority, and at a lower one.

`make bench BENCH=streaming`: a real vLLM on the tiny model; answers of 100 tokens one after another, in turns with the
engine's session at the reader's own priority and at the lower one of `process.lower_priority`. Needs Linux with
autogroups, and root to raise a priority again. A gap is the longest time between two arrivals of an answer.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from rlhf_online.engine.host import EngineHost
from rlhf_online.process import NICE
from tests.support.engine import publish, running_host
from tests.support.waiting import eventually

TOKENS = 100


async def answer(host: EngineHost) -> tuple[int, float, float]:
    """Number of separate arrivals, the longest gap between two and the whole time, in seconds."""
    body = {
        "model": host.model_name,
        "prompt": [1, 20, 3],
        "stream": True,
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "logprobs": 0,
        "return_token_ids": True,
    }
    times = [time.monotonic()]
    async with host.client.session.post(host.client.base + "/v1/completions", json=body) as response:
        async for _ in response.content.iter_any():
            times.append(time.monotonic())
    gaps = [after - before for before, after in pairwise(times)]
    return len(gaps), max(gaps), times[-1] - times[0]


async def measure(answers: int, turns: int) -> None:
    """Print a line a turn."""
    with tempfile.TemporaryDirectory() as folder:
        async with running_host(Path(folder)) as host:
            await eventually(lambda: host.state != "starting")
            version = publish(host.registry, 0)
            await eventually(lambda: host.serving == version)
            assert host.process is not None and host.process.process is not None
            for turn in range(turns):
                nice = (0, NICE)[turn % 2]
                autogroup = Path(f"/proc/{host.process.process.pid}/autogroup")
                await asyncio.to_thread(autogroup.write_text, str(nice))
                arrivals, gaps, whole = zip(*[await answer(host) for _ in range(answers)], strict=True)
                print(
                    f"engine at nice {nice:2}: {statistics.median(arrivals):3.0f} arrivals of {TOKENS} tokens; "
                    f"{sum(a < TOKENS / 2 for a in arrivals):3} of {answers} answers in lumps; longest gap "
                    f"p50 {1000 * statistics.median(gaps):4.0f} ms, max {1000 * max(gaps):4.0f} ms; "
                    f"an answer takes {1000 * statistics.median(whole):4.0f} ms",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benches.streaming", description=__doc__)
    parser.add_argument("--answers", type=int, default=50, help="answers a turn (default 50)")
    parser.add_argument("--turns", type=int, default=6, help="turns, the two priorities alternating (default 6)")
    given = parser.parse_args()
    asyncio.run(measure(given.answers, given.turns))


if __name__ == "__main__":
    main()
