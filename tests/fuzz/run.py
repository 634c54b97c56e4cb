"""`make fuzz`: requests nobody thought of, over HTTP and gRPC, and whether the chat service stands them.

    python -m tests.fuzz.run [--cases 50000] [--seed 7]

The service is the real one in a process of its own, with keys and the log on disk; its engine is a stand-in. A fifth of
the cases are bytes that no library sends (`raw_cases`), a third calls of gRPC (`grpc_cases`), the rest requests made of
`/openapi.json` (`http_cases`). In the end the log must hold what was acknowledged, and the service must start on it.

What is found is printed as small as hypothesis can make it: a curl command, or the message as textproto. The same seed
makes the same cases, as far as they do not name what the service gave out. Exit code 1 if anything was found.
"""

import argparse
import asyncio
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import requests
from hypothesis.strategies import SearchStrategy

from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest
from tests.fuzz.grpc_cases import GrpcCases
from tests.fuzz.http_cases import HttpCases
from tests.fuzz.known import Known
from tests.fuzz.people import credentials
from tests.fuzz.raw_cases import RawCases
from tests.fuzz.search import Tally, search
from tests.support import api_keys
from tests.support.chat_process import ChatProcess, chat_process

CASES = 50_000
ROUND = 4_000
"""Cases after which all operations have had a turn, and name in the next what was given out in this one."""
BEGIN_ANSWERS, BEGIN_VOTES = 8, 4
"""What people were given before the first case."""
EXIT_S = 30.0
MIB, CASE_BYTES = 1 << 20, 4096
Search = tuple[str, SearchStrategy[Any], Callable[[Any], str], float]
"""A name, what is drawn, the attempt, and its share."""
UNLIMITED = {"requests_per_minute": 0, "concurrent": 0, "tokens_per_day": 0, "votes_per_hour": 0}
LIMITS = {"key": UNLIMITED, "person": UNLIMITED}


def fuzz(
    service: ChatProcess, known: Known, tally: Tally, *, cases: int, seed: int, say: Callable[[str], None]
) -> None:
    """Make so many cases. An operation of which something was found is left alone from then on."""
    who = credentials(service.state.operator_token())
    _begin(service, known)
    http, grpc = HttpCases(service.url, who, known), GrpcCases(service.grpc, who, known)
    searches = _shared(http, grpc, RawCases(_address(service.url), _address(f"//{service.grpc}"), who))
    try:
        number = 0
        while (left := cases - tally.total) > 0 and not _ended(service):
            for name, drawn, attempt, share in searches:
                if not any(found.startswith(f"{name}: ") for found in tally.found):
                    count = max(1, round(share * min(left, ROUND)))
                    draws = random.Random(f"{seed} {number} {name}").getrandbits(64)
                    search(name, drawn, attempt, tally, cases=count, seed=draws)
                    for found in tally.found:
                        if found.startswith(f"{name}: "):
                            say(f"\nFOUND {found}")
                    service.engine.requests.clear()
            number += 1
            say(f"{tally.total:6} cases, {_rss(service) / MIB:4.0f} MiB, {len(tally.found)} found")
    finally:
        grpc.close()
    if _ended(service):
        tally.found.append(f"the service ended, its last words: {service.output.read_text(errors='replace')[-2000:]}")


async def close_the_books(service: ChatProcess, known: Known, tally: Tally, *, began_bytes: int) -> None:
    """What must hold when all was said: nothing is lost, nothing grew, no error was met, and it ends and starts."""
    if _ended(service):
        return
    grown = _rss(service) - began_bytes
    if grown > 64 * MIB + tally.total * CASE_BYTES:
        tally.found.append(f"memory grew by {grown / MIB:.0f} MiB in {tally.total} cases")
    service.signal(signal.SIGTERM)
    if code := await service.ended(EXIT_S):
        tally.found.append(f"ended with {code} after SIGTERM")
    tally.found += [f"in its log: {line[:2000]}" for line in not_said(service)]
    tally.found += known.lost(service.logged())
    await service.start()


async def fuzz_a_service(
    cases: int, seed: int, folder: Path, say: Callable[[str], None] = lambda _: None
) -> tuple[Tally, Known]:
    """All of it, with the service's files in `folder`: what was found, and what was given out."""
    tally, known = Tally(), Known()
    (folder / "state").mkdir(mode=0o700)
    api_keys.write(folder / "state")
    async with chat_process(folder, limits=LIMITS) as service:
        registry = open_registry(service.state.versions)
        for _ in range(2):
            registry.stage(name := registry.reserve("policy"))
            registry.publish(Manifest(version=name, tuning="lora"))
            known.add("version", name, "")
        began = _rss(service)
        await asyncio.to_thread(fuzz, service, known, tally, cases=cases, seed=seed, say=say)
        await close_the_books(service, known, tally, began_bytes=began)
    return tally, known


def _begin(service: ChatProcess, known: Known) -> None:
    """Two people chat, compare and vote (BEGIN_ANSWERS), so that there is something to name from the first case on."""
    ask = {"messages": [{"role": "user", "content": "hello"}]}
    for who in credentials(service.state.operator_token())[:2]:
        post = partial(_post, service.url, dict(who.headers()))
        for reply in (post("chat/completions", **ask, n=2), post("completions", prompt="once")):
            known.answered([reply["id"]], reply["rlhf"]["conversation_id"], who.person, logged=reply["rlhf"]["logged"])
            vote = post("feedback", thumb={"answer": {"completion_id": reply["id"]}, "up": True})
            known.voted(vote["event_id"], who.person)
        shown = post("comparisons", **ask)
        ids = [one["answer"]["completion_id"] for one in shown["answers"]]
        known.answered(ids, shown["conversation_id"], who.person, logged=True, comparison=shown["comparison_id"])
    page = requests.get(service.url, timeout=EXIT_S).text
    for digest, name in re.findall(r"page/(\w+)/([\w.-]+)", page):
        known.add("digest", digest, "")
        known.add("name", name, "")


def _post(url: str, headers: dict[str, str], path: str, **body: Any) -> dict[str, Any]:
    response = requests.post(f"{url}/v1/{path}", json=body, headers=headers, timeout=EXIT_S)
    response.raise_for_status()
    return response.json()


def _shared(http: HttpCases, grpc: GrpcCases, raw: RawCases) -> list[Search]:
    """All searches. A body has many ways to be wrong, a query has some, and what takes neither has hardly any."""
    weights = [(one, 8 if one[0].body or one[0].lines else 2 if one[0].query else 1) for one in http.searches()]
    total = sum(weight for _, weight in weights)
    calls, bytes_ = grpc.searches(), raw.searches()
    return [
        *((operation.name, drawn, attempt, 0.4 * weight / total) for (operation, drawn, attempt), weight in weights),
        *((name, drawn, attempt, 0.35 / len(calls)) for name, drawn, attempt in calls),
        *((name, drawn, attempt, 0.25 / len(bytes_)) for name, drawn, attempt in bytes_),
    ]


def not_said(service: ChatProcess) -> list[str]:
    """Lines of its log that are none of its own, tracebacks and bytes that were sent to it; and those of its errors."""
    lines = service.output.read_text(errors="replace").splitlines()
    return [line for line in lines if not line.startswith("timestamp=") or "level='error'" in line]


def _rss(service: ChatProcess) -> int:
    return 0 if _ended(service) else psutil.Process(service.pid).memory_info().rss


def _ended(service: ChatProcess) -> bool:
    return service.process is None or service.process.returncode is not None


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port


def report(tally: Tally, known: Known, seed: int) -> str:
    """For people."""
    rows = [f"{name:24} {count:6}" for name, count in sorted(tally.cases.items())]
    ends = "  ".join(f"{status} {count}" for status, count in sorted(tally.outcomes.items()))
    counted = f"{tally.total} cases of seed {seed}; {len(known.answers)} answers and {len(known.votes)} votes, 0 lost"
    return "\n".join([*rows, ends, counted, *(f"\nFOUND {found}" for found in tally.found)])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", type=int, default=CASES, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of what is drawn (default: the time)")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        tally, known = asyncio.run(
            fuzz_a_service(options.cases, options.seed, Path(name), lambda line: print(line, flush=True))
        )
    print(report(tally, known, options.seed))
    return bool(tally.found)


if __name__ == "__main__":
    sys.exit(main())
