"""What a judge on the engine that serves costs those who chat: `python -m tests.benches.judge_cost [--json]`.

The chat service starts vLLM, as `rlhf-online up` does; people ask it at random moments, `--rate` a second (open loop),
for answers of `--tokens`. In every other turn a judge asks the same engine at its own socket for 100 labels a minute,
each of two questions of some 250 tokens, as `rlhf-online judge run` does (`rewards.judge.endpoint`, in a process of its
own), at the priority of what is no person's. Turns alternate, so that what else the machine does meets both, and the
order within a round does, too. Of whole answers: p50 and p99 with the judge over those without, and 95 % intervals of
the ratios, from rounds drawn again (bootstrap).

By default the model is the tiny world's, with room for such questions; `--model` names another folder. `ok`: the judge
got its labels, nobody's answer failed, and p99 is surely at most 5 % longer: so is the upper end of its interval.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import orjson
import uvloop

from rlhf_online.engine.child import SERVED_NAME, socket_path
from rlhf_online.models.first_probe import first_probe
from rlhf_online.rewards.judge.endpoint import Cache, Endpoint
from rlhf_online.rewards.judge.settings import JudgeSettings
from rlhf_online.rewards.judge.verdicts import Doubt, question
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import genesis
from tests.benches.support import load
from tests.benches.support.figures import p99, show
from tests.benches.support.load import HttpClient, Reply
from tests.benches.support.reports import note
from tests.benches.support.servers import ChatFolder, until_ready
from tests.support.hh_rlhf import WORDS

CHAT = "/v1/chat/completions"
LABELS_A_MINUTE, LEAST_LABELS = 100, 95
WORDS_AN_ANSWER = 100
POSITIONS = 1024
MOST = 1.05
DRAWS = 2000

Rounds = Sequence[tuple[list[Reply], list[Reply]]]
"""Of each round the replies without the judge, and beside it."""


def judging(socket: Path, cache: Path, on: Event, replies: "Synchronized[int]") -> None:
    """A judge's process: asks as long as `on` is set, and counts what was answered."""
    settings = JudgeSettings(
        url=f"unix:{socket}",
        model=SERVED_NAME,
        principles=("Prefer the better answer.",),
        labels_per_minute=LABELS_A_MINUTE,
    )
    endpoint, rng = Endpoint(settings, Cache(cache)), random.Random("a judge's questions")
    while True:
        on.wait()
        a, b = (" ".join(rng.choices(WORDS, k=WORDS_AN_ANSWER)) for _ in range(2))
        for answers in ((a, b), (b, a)):
            said = endpoint.ask(question("user: name three metal", *answers, settings.principles[0], "mark"))
            if said not in (Doubt("late"), Doubt("away")):
                with replies.get_lock():
                    replies.value += 1


def written(folder: Path) -> Path:
    """The tiny world's model, which reads longer texts than the world's."""
    write_tiny_model(folder, weights_seed=0)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": POSITIONS}))
    return folder


def request(headers: dict[str, str], tokens: int) -> bytes:
    messages = [{"role": "user", "content": "name three metal"}]
    body = {"messages": messages, "stream": True, "max_tokens": tokens, "ignore_eos": True}
    return load.post(CHAT, orjson.dumps(body), headers)


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, float | int]:
    state = StateDir(folder / "state")
    model = options.model or written(folder / "base")
    genesis(open_registry(state.versions), model, tuning="full", probe_of=first_probe)
    engine = {"model": str(model), "max_model_len": POSITIONS, "kv_cache_gib": 0.5, "threads": 1}
    chat = ChatFolder(folder, engine)
    context = multiprocessing.get_context("spawn")
    on, replies = context.Event(), context.Value("i", 0)
    with chat.serve(None) as server:
        until_ready(server, "/readyz", {})
        arguments = (socket_path(state.run), folder / "judge.sqlite", on, replies)
        judge = context.Process(target=judging, args=arguments, daemon=True)
        judge.start()
        client = HttpClient(server.port, [request(chat.headers(person), options.tokens) for person in range(100)])
        rounds: list[tuple[list[Reply], list[Reply]]] = []
        try:
            on.set()
            await load.open_loop(client.ask, rate=options.rate, seconds=options.seconds, seed=-1)  # warm
            on.clear()
            asked = replies.value
            for number in range(options.rounds):
                note(f"round {number + 1} of {options.rounds}")
                found: dict[bool, list[Reply]] = {}
                for judged in (False, True) if number % 2 else (True, False):
                    (on.set if judged else on.clear)()
                    seed = 2 * number + judged
                    found[judged] = await load.open_loop(
                        client.ask, rate=options.rate, seconds=options.seconds, seed=seed
                    )
                on.clear()
                rounds.append((found[False], found[True]))
            labels = (replies.value - asked) / 2 / (options.rounds * options.seconds / 60)
        finally:
            judge.terminate()
            judge.join()
            await client.close()
    for pair in rounds:
        for each in pair:
            load.expect_none(each)
    return {
        "answers_without": sum(len(pair[0]) for pair in rounds),
        "answers_beside": sum(len(pair[1]) for pair in rounds),
        "labels_a_minute": round(labels),
        **compared(rounds),
    }


def compared(rounds: Rounds) -> dict[str, float | int]:
    """p50 and p99 of both arms in ms, and what the judge makes of them."""
    timed = [
        ([reply.end_s - reply.due_s for reply in without], [reply.end_s - reply.due_s for reply in beside])
        for without, beside in rounds
    ]
    found: dict[str, float | int] = {}
    for figure, of in (("p50", statistics.median), ("p99", p99)):
        without, beside = (of([value for pair in timed for value in pair[arm]]) for arm in (0, 1))
        low, high = interval(timed, of)
        found |= {f"{figure}_ms": round(1000 * without, 2), f"{figure}_beside_ms": round(1000 * beside, 2)}
        found |= {f"{figure}_ratio": round(beside / without, 3)}
        found |= {f"{figure}_ratio_low": round(low, 3), f"{figure}_ratio_high": round(high, 3)}
    return found


def interval(
    timed: Sequence[tuple[list[float], list[float]]], of: Callable[[Sequence[float]], float]
) -> tuple[float, float]:
    """95 % of the ratio, rounds drawn with replacement: what happens within one is not independent."""
    rng, ratios = random.Random("rounds"), []
    for _ in range(DRAWS):
        drawn = rng.choices(timed, k=len(timed))
        without, beside = (of([value for pair in drawn for value in pair[arm]]) for arm in (0, 1))
        ratios.append(beside / without)
    ratios.sort()
    return ratios[DRAWS // 40], ratios[DRAWS - 1 - DRAWS // 40]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=12.0, help="length of one turn, of which a round has two")
    parser.add_argument("--rate", type=float, default=10.0, help="people's requests a second")
    parser.add_argument("--tokens", type=int, default=48, help="of an answer")
    parser.add_argument("--model", type=Path, help="a model's folder instead of the tiny world's")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-judge-") as folder:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found: dict[str, Any] = runner.run(measure(options, Path(folder)))
    found["ok"] = found["p99_ratio_high"] <= MOST and found["labels_a_minute"] >= LEAST_LABELS
    show(found, as_json=options.json)


if __name__ == "__main__":
    main()
