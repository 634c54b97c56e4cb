"""A real chat model learns from some hundred votes: utility on held-out prompts before and after, over the public API.

    make bench BENCH=smollm          a little more than an hour on two cores

`rlhf-online up` serves SmolLM2-135M-Instruct from a fresh state folder. Simulated people (`everyday`) chat about other
things than those measured, and vote: rankings of four answers, and thumbs. With most of the votes the trainer begins:
the reward model learns from them, then the policy in `--updates` updates by PPO, an adapter each, while the service
runs. When it has come to rest the same prompts are measured again on what serves then. Nothing that learns sees the
utility. The exit code is 1 if the utility did not go up by more than two standard errors.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from rlhf_online.cli.client import running_at
from rlhf_online.config import load_log
from rlhf_online.process import die_with_parent
from rlhf_online.simulation import vote_counts
from rlhf_online.simulation.client import ChatClient, Reply, RequestCounts, RequestFailed
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from tests.benches.everyday import HELD_OUT, VOTED_ON, Utility, vote
from tests.benches.support import reports
from tests.benches.support.reports import note
from tests.support.waiting import ENGINE_START_S

ROOT = Path(__file__).resolve().parents[2]
MAX_TOKENS = 48
AT_ONCE = 8
RANKED, TOGETHER = 0.7, 4
"""Share of the votes that rank answers, and how many; the others are thumbs."""
REST_S = 8.0
SAMPLES = 4
COLD_SHARE = 0.9
"""Of the votes, with which the trainer begins; what is left is too few for another cycle."""
FIRST = "policy-000000"


@dataclass(frozen=True, slots=True)
class Measured:
    """Mean utility over held-out prompts; `stderr` is that of the mean over prompts' means."""

    utility: float
    stderr: float
    answers: int
    words: float
    ended: float
    versions: tuple[str, ...]
    by_prompt: tuple[float, ...]
    samples: tuple[str, ...]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, default=300, help="votes that the people give")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the people's choices; the engine's sampling is not seeded"
    )
    parser.add_argument("--updates", type=int, default=8, help="policy updates")
    parser.add_argument("--answers", type=int, default=8, help="answers measured a held-out prompt")
    parser.add_argument("--minutes", type=float, default=90.0, help="longest that voting and learning may take")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-smollm", help="folder of the run")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    started = time.monotonic()
    process = _start(options)
    try:
        report = asyncio.run(_bench(options, StateDir(options.out / "state"), process))
    finally:
        _stop(process)
    report["wall_s"] = round(time.monotonic() - started, 1)
    (options.out / "report.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report) if options.json else _table(report))
    return 0 if all(report["holds"].values()) else 1


async def _bench(options: argparse.Namespace, state: StateDir, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    url = await _ready(state, process)
    traffic, utility = RequestCounts(), Utility()
    note("measuring before")
    async with ChatClient(url, traffic, max_tokens=MAX_TOKENS, timeout_s=600) as client:
        before = await _measure(client, utility, options.answers)
        note(f"utility {before.utility:.3f} ± {before.stderr:.3f}; {options.votes} votes follow")
        began = time.monotonic()
        acknowledged, served, rested = await _learn(client, utility, options, state, began + options.minutes * 60)
        learning_s = time.monotonic() - began
        note("measuring after")
        after = await _measure(client, utility, options.answers)
    gains = [late - early for early, late in zip(before.by_prompt, after.by_prompt, strict=True)]
    registry = open_registry(state.versions)
    fate = vote_counts.count_votes(state, load_log(state.run / "standalone.toml"), acknowledged)
    return {
        "seed": options.seed,
        "votes": len(acknowledged),
        "trained": fate.trained,
        "held_out": fate.held_out,
        "pending": fate.pending,
        "trained_twice": fate.trained_twice,
        "before": asdict(before),
        "after": asdict(after),
        "holds": {
            "the utility goes up by more than 2 standard errors": statistics.fmean(gains) > 2 * _stderr(gains),
            "all updates are made in the time given": rested,
            "what is measured last is one version, and not the first": len(after.versions) == 1
            and FIRST not in after.versions,
        },
        "gain": statistics.fmean(gains),
        "gain_stderr": _stderr(gains),
        "learning_s": round(learning_s, 1),
        "requests": traffic.requests,
        "failed_requests": traffic.failed_requests,
        "versions_served": [name for name in served if name != FIRST],
        "versions": [
            {"version": name, "state": registry.status(name).state, "kl": registry.manifest(name).kl}
            for name in registry.versions("policy")
        ],
    }


async def _measure(client: ChatClient, utility: Utility, answers: int) -> Measured:
    """Answers to the held-out prompts; they are not logged, so that nothing learns from these prompts."""
    gate = asyncio.Semaphore(4)

    async def one(prompt: str) -> list[Reply]:
        async with gate:
            return await client.chat(prompt, n=answers, store=False)

    replies = await asyncio.gather(*(one(prompt) for prompt in HELD_OUT))
    flat = [reply for group in replies for reply in group]
    means = [statistics.fmean(utility(reply.text, reply.finished) for reply in group) for group in replies]
    return Measured(
        utility=statistics.fmean(means),
        stderr=_stderr(means),
        answers=len(flat),
        words=statistics.fmean(len(reply.text.split()) for reply in flat),
        ended=statistics.fmean(reply.finished for reply in flat),
        versions=tuple(sorted({version for reply in flat for version in reply.versions})),
        by_prompt=tuple(means),
        samples=tuple(group[0].text for group in replies[:SAMPLES]),
    )


async def _learn(
    client: ChatClient, utility: Utility, options: argparse.Namespace, state: StateDir, deadline: float
) -> tuple[list[str], list[str], bool]:
    """Have people vote, then wait until the trainer rests: ids of the acknowledged votes, versions seen serving, and
    whether it rested before the deadline."""
    dice = random.Random(options.seed)
    turns = asyncio.Queue[int]()
    for turn in range(options.votes):
        turns.put_nowait(turn)
    acknowledged: list[str] = []
    served: list[str] = []

    async def person() -> None:
        while not turns.empty() and time.monotonic() < deadline:
            turn = turns.get_nowait()
            try:
                replies = await client.chat(dice.choice(VOTED_ON), n=TOGETHER if dice.random() < RANKED else 1)
                body = vote([utility(r.text, r.finished) for r in replies], [r.ref for r in replies], dice)
                ack = await client.feedback({**body, "conversation_id": replies[0].conversation_id})
            except RequestFailed as error:
                note(f"a request failed: {error}")
                turns.put_nowait(turn)
                continue
            acknowledged.append(ack.event_id)

    async def watch(done: Callable[[], bool]) -> None:
        while not done() and time.monotonic() < deadline:
            live = open_registry(state.versions).live("policy")
            if live is not None and live not in served:
                served.append(live)
                note(f"{live} is live after {len(acknowledged)} votes")
            await asyncio.sleep(1)

    people = asyncio.gather(*(person() for _ in range(AT_ONCE)))
    await watch(people.done)
    await people
    note(f"{len(acknowledged)} votes are given; the trainer goes on")
    await watch(lambda: _rests(state, len(acknowledged)))
    return acknowledged, served, _rests(state, len(acknowledged))


def _rests(state: StateDir, given: int) -> bool:
    """True when the trainer has read all votes given, and has waited for more of them for some seconds."""
    status = state.read_status("trainer")
    read = sum(status.get("votes", {}).values())
    idle_s = time.time() - status.get("updated_ms", 0) / 1000
    return status.get("phase") == "waiting" and status.get("cycle", 0) > 0 and read >= given and idle_s > REST_S


async def _ready(state: StateDir, process: subprocess.Popen[bytes]) -> str:
    """The service's address, once the first version serves."""
    deadline = time.monotonic() + ENGINE_START_S
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline and process.poll() is None:
            if url := running_at(state.root):
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{url}/readyz") as response:
                        if response.status == 200:
                            return url
            await asyncio.sleep(0.5)
    raise SystemExit(f"the service did not become ready; see {state.logs} and {state.root.parent / 'up.log'}")


def _start(options: argparse.Namespace) -> subprocess.Popen[bytes]:
    out: Path = options.out
    settings = {"cold_votes": round(COLD_SHARE * options.votes), "policy_updates": options.updates}
    command = [sys.executable, "-m", "rlhf_online.cli", "up", "--state", str(out / "state"), "--port", "0"]
    with (out / "up.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--grpc-port", "0", *(f"--set=trainer.{name}={value}" for name, value in settings.items())],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(100)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _stderr(values: list[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5


def _table(report: dict[str, Any]) -> str:
    before, after = report["before"], report["after"]
    lines = [
        f"votes            {report['votes']} ({report['trained']} trained, {report['held_out']} held out, "
        f"{report['pending']} pending, {report['trained_twice']} twice)",
        f"utility          {before['utility']:+.3f} ± {before['stderr']:.3f}  →  "
        f"{after['utility']:+.3f} ± {after['stderr']:.3f}",
        f"gain             {report['gain']:+.3f} ± {report['gain_stderr']:.3f} (paired over {len(HELD_OUT)} prompts)",
        f"words            {before['words']:.1f}  →  {after['words']:.1f}",
        f"ended by itself  {before['ended']:.0%}  →  {after['ended']:.0%}",
        f"wall             {report['wall_s']:.0f} s, of it {report['learning_s']:.0f} s from the first vote to rest",
        f"requests         {report['requests']}, {report['failed_requests']} failed",
        "versions         " + ", ".join(f"{v['version']} {v['state']} (KL {v['kl']:.2f})" for v in report["versions"]),
        *reports.verdicts(report["holds"]),
        f"measured on      {', '.join(before['versions'])}  →  {', '.join(after['versions'])}",
    ]
    for prompt, early, late in zip(HELD_OUT, before["samples"], after["samples"], strict=False):
        lines += ["", f"> {prompt}", f"  before: {' '.join(early.split())}", f"  after:  {' '.join(late.split())}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
