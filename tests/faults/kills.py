"""SIGKILL at random points, again and again, while people chat and vote: nothing is lost, nothing is trained on twice.

    python -m tests.faults.kills --kills N --seed S [--minutes 85] [--json FILE]
    python -m tests.faults.kills --long --minutes 60

Chat service, broker and trainer each live and die in a loop of their own, so that several may be down at once. What is
killed and when is drawn from the seed: a moment of the start and the recovery, or of the life after it. A forwarder,
which the chat service starts again, is killed at a moment when Kafka has not confirmed everything. In the end all is
let run until the trainer has had every event, and the auditor counts.

Meanwhile some components are stopped for five seconds instead (SIGSTOP), the disk of the state folder is kept full for
as long now and then (where one of its own can be mounted), and clients do not play along (`hostile`). Votes are refused
only while the disk is full, and chat answers whenever nobody has just done something to it. `--long` goes on until the
time is over, however many kills that takes.
"""

import argparse
import asyncio
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import aiohttp

from rlhf_online.eventlog import open_source
from rlhf_online.eventlog.base import Position, has_reached
from tests.faults.auditor import Report, audit
from tests.faults.clients import PROMPTS, Clients
from tests.faults.hostile import Hostile
from tests.faults.product import POLL_S, Component, Product

Kind = Literal["chat", "forwarder", "broker", "trainer"]
VICTIM: dict[Kind, str] = {"chat": "chat", "forwarder": "chat", "broker": "broker", "trainer": "trainer"}
WEIGHTS: dict[Kind, float] = {"chat": 0.35, "forwarder": 0.15, "broker": 0.2, "trainer": 0.3}
STOPPED, STOP_S = 0.15, 5.0
"""Share of what would be kills that are stops, and how long those last."""
FILL_EVERY_S, FILL_S = 45.0, 5.0
ASK_S, ASK_WITHIN_S = 0.5, 10.0
BACK_WITHIN_S = 30.0
"""After somebody did something to the chat service, it must answer again."""
HOSTILE = 3
STARTING = 0.25
"""Share of the kills that strike during start and recovery."""
START_S = {"chat": 0.5, "broker": 5.0, "trainer": 3.0}
"""About as long as these take."""
LIFE_S = {"chat": 9.0, "broker": 20.0, "trainer": 10.0}
"""Longest lives of those that have become ready."""
UNDER_WAY_S = 10.0
DRAIN_S = 300.0
PEOPLE, PAUSE_S = 6, 0.4
LONG = 100_000
"""Kills of a plan that no time is long enough for."""
FATES = ("trained", "held_out", "pending", "orphaned", "dead_lettered", "withdrawn", "erased")
PROGRESS_S = 10.0


@dataclass(frozen=True, slots=True)
class Kill:
    """`share` is how much of its start (`starting`) or of its longest life the victim has had when it is struck."""

    kind: Kind
    starting: bool
    share: float
    stop: bool


def plan(kills: int, seed: int) -> list[Kill]:
    """What the seed says; a longer plan begins as a shorter one."""
    rng = random.Random(seed)
    return [_draw(rng) for _ in range(kills)]


def _draw(rng: random.Random) -> Kill:
    [kind] = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
    starting = kind != "forwarder" and rng.random() < STARTING
    return Kill(kind, starting, rng.random(), kind != "forwarder" and not starting and rng.random() < STOPPED)


class Run:
    """One run in `folder`: `execute` kills, lets drain, stops and audits."""

    def __init__(self, folder: Path, kills: int, seed: int, minutes: float, *, long: bool = False) -> None:
        self.seed = seed
        self.killed: Counter[str] = Counter()
        self.stopped = 0
        self._unanswered: list[str] = []
        self._drained = True
        self._long = long
        self._plan = plan(kills, seed)
        self._began = time.monotonic()
        self._end = self._began + 60 * minutes
        self._acknowledged = folder / "acknowledged"
        self._product = Product(folder, seed)
        self._clients = Clients(
            self._product.url,
            self._acknowledged,
            people=PEOPLE,
            pause_s=PAUSE_S,
            seed=seed,
            may_refuse=lambda: self._product.disk.was_full,
        )
        self._hostile = Hostile(self._product.url, each=HOSTILE, seed=seed)

    async def execute(self) -> dict[str, Any]:
        """The figures, with `problems`. Raises AssertionError for a process that does what no kill explains."""
        async with self._product, self._clients:
            async with asyncio.TaskGroup() as group, self._hostile:
                others = [group.create_task(each()) for each in (self._show, self._ask, self._fill)]
                lives = [group.create_task(self._lives(component)) for component in self._product.lives]
                await asyncio.wait(lives)
                for task in others:
                    task.cancel()
            for component in self._product.lives:  # a full disk may have ended it just now
                await component.ready()
            report = await self._settle()
            return self._figures(report)

    # Killing

    async def _lives(self, component: Component) -> None:
        """One life after the other, each ended by a kill, and a last one that is not."""
        running = False
        for kill in self._plan:
            if VICTIM[kill.kind] != component.name:
                continue
            if time.monotonic() > self._end:
                break
            if not running:
                component.start()
            if kill.starting:
                await asyncio.sleep(kill.share * START_S[component.name])
            else:
                await component.ready()
                await asyncio.sleep(kill.share * LIFE_S[component.name])
            if kill.stop:
                component.pause()
                await asyncio.sleep(STOP_S)
                component.resume()
                self.stopped += 1
                running = True
                continue
            if running := kill.kind == "forwarder":
                await self._deliveries_under_way()
                await self._product.kill_forwarder()
            else:
                component.kill()
            self.killed[kill.kind] += 1
        if not running:
            component.start()
        await component.ready()

    async def _deliveries_under_way(self) -> None:
        """Wait for a moment at which Kafka has not confirmed everything, UNDER_WAY_S at most."""
        deadline = time.monotonic() + UNDER_WAY_S
        while time.monotonic() < deadline and not await self._backlog():
            pass

    async def _backlog(self) -> float:
        """Events that Kafka has not confirmed, as the chat service tells."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._product.url}/metrics") as response:
            found = re.search(r"^rlhf_log_backlog_records (\S+)$", await response.text(), re.MULTILINE)
        assert found is not None
        return float(found[1])

    # What others must not notice

    async def _fill(self) -> None:
        """Keep the disk full now and then."""
        rng = random.Random(f"{self.seed} disk")
        while True:
            await asyncio.sleep(rng.uniform(0.5, 1.5) * min(FILL_EVERY_S, (self._end - self._began) / 10))
            await self._product.disk.fill(FILL_S)

    async def _ask(self) -> None:
        """Chat answers, unless something was just done to it."""
        chat = self._product.chat
        answered_s = 0.0
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_WITHIN_S)) as session:
            while True:
                disturbed_s, asked_s = chat.disturbed_s, time.monotonic()
                why = await _asked(session, self._product.url)
                if not why:
                    answered_s = asked_s
                elif (
                    chat.disturbed_s == disturbed_s
                    and not self._product.disk.was_full
                    and (answered_s > disturbed_s or asked_s > disturbed_s + BACK_WITHIN_S)
                ):
                    self._unanswered.append(why)
                await asyncio.sleep(ASK_S)

    async def _show(self) -> None:
        trained = 0
        while True:
            await asyncio.sleep(PROGRESS_S)
            self._clients.check()
            # A trainer that has just started says nothing yet.
            trained = self._product.state.read_status("trainer").get("votes", {}).get("trained", trained)
            kinds = ", ".join(f"{kind} {self.killed[kind]}" for kind in get_args(Kind))
            print(
                f"{time.monotonic() - self._began:5.0f} s  killed {self.killed.total()}/{len(self._plan)} ({kinds})  "
                f"acknowledged {len(self._clients.answers)} answers, {len(self._clients.votes)} votes  "
                f"trained {trained}  stops {self.stopped}  disk full {self._product.disk.fills}  seed {self.seed}",
                flush=True,
            )

    # Counting

    async def _settle(self) -> Report:
        """Let the trainer have all that people sent until now, stop in good order, and audit."""
        product = self._product
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._all_shipped()
                end = await asyncio.to_thread(self._end_of_log)
                while not has_reached(product.trainer.position, end):
                    self._clients.check()
                    await asyncio.sleep(POLL_S)
                await self._clients.stop()
                await self._all_shipped()
        except TimeoutError:
            self._drained = False
        product.trainer.stop()
        product.chat.stop()
        product.reward.stop()
        acknowledged = self._acknowledged.read_text().split()
        return await asyncio.to_thread(audit, product.state.root, acknowledged, kafka=product.kafka)

    async def _all_shipped(self) -> None:
        while await self._backlog():  # noqa: ASYNC110  # another process is asked
            await asyncio.sleep(POLL_S)

    def _end_of_log(self) -> Position:
        source = open_source(self._product.log, self._product.state.log)
        try:
            return source.end()
        finally:
            source.close()

    def _figures(self, report: Report) -> dict[str, Any]:
        seconds = time.monotonic() - self._began
        trainer = self._product.trainer.output.read_text()
        registry = self._product.registry
        states = Counter(registry.status(version).state for version in registry.versions("policy"))
        figures = {
            "seed": self.seed,
            "kills": {kind: self.killed[kind] for kind in get_args(Kind)},
            "accepted": report.accepted,
            "in_kafka": report.in_kafka,
            "spooled": report.spooled,
            **{
                name: report.fate[name]
                for name in ("trained", "held_out", "pending", "orphaned", "dead_lettered", "withdrawn", "erased")
            },
            "lost": len(report.lost),
            "unaccounted": len(report.unaccounted),
            "trained_twice": report.twice,
            "votes": len(self._clients.votes),
            "votes_sent_again": self._clients.sent_again,
            "votes_refused": self._clients.refused,
            "answers_not_logged": self._clients.not_logged,
            "stops": self.stopped,
            "disk_full": self._product.disk.fills,
            "checkpoints": self._product.trainer.checkpoint().get("number", -1) + 1,
            "resumed": trainer.count("event='resumed'"),
            "versions": dict(states),
            "seconds": round(seconds, 1),
        }
        return figures | {"problems": self._problems(figures, report)}

    def _problems(self, figures: dict[str, Any], report: Report) -> list[str]:
        said = list(report.problems)
        if self._clients.refused_unduly:
            said.append(f"{self._clients.refused_unduly} votes were refused though the disk was not full")
        if self._unanswered:
            said.append(f"{len(self._unanswered)} questions had no answer, such as: {self._unanswered[0]}")
        if self.killed.total() + self.stopped < len(self._plan) and not self._long:
            said.append(f"only {self.killed.total() + self.stopped} of {len(self._plan)} kills fitted into the time")
        if report.in_kafka != report.accepted:
            said.append(f"{report.accepted} events were accepted, {report.in_kafka} are in Kafka")
        if (accounted := report.fate.total()) != figures["votes"]:
            said.append(f"{figures['votes']} votes were accepted, {accounted} are accounted for")
        if not self._drained:
            said.append(f"after {DRAIN_S:.0f} s without kills the trainer had not had everything")
        if not figures["trained"]:
            said.append("nothing was trained on, so nothing is proven")
        return said


async def _asked(session: aiohttp.ClientSession, url: str) -> str:
    """Why a question had no answer, "" if it had one."""
    question = {"messages": [{"role": "user", "content": PROMPTS[0]}], "max_tokens": 2}
    try:
        async with session.post(f"{url}/v1/chat/completions", json=question) as response:
            return "" if response.status == 200 else f"HTTP {response.status}: {await response.text()}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"


def run(folder: Path, kills: int, seed: int, minutes: float, *, long: bool = False) -> dict[str, Any]:
    """See `Run.execute`."""

    async def execute() -> dict[str, Any]:
        return await Run(folder, kills, seed, minutes, long=long).execute()

    return asyncio.run(execute())


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures; exit code 1 if something is wrong with them."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=25, help="how many (%(default)s)")
    parser.add_argument("--long", action="store_true", help="until the time is over, whatever --kills says")
    parser.add_argument("--seed", type=int, help="what is killed and when (drawn and printed by default)")
    parser.add_argument("--minutes", type=float, default=85.0, help="no more kills after that (%(default)s)")
    parser.add_argument("--json", type=Path, help="file that the figures are written to")
    parser.add_argument(
        "--folder", type=Path, help="empty folder to work in, which stays; else one that stays on failure"
    )
    given = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    folder = given.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    kills = f"{given.minutes:g} minutes of" if given.long else given.kills
    print(f"{kills} kills, seed {seed}, in {folder}", flush=True)
    kills = LONG if given.long else given.kills
    figures = run(folder, kills, seed, given.minutes, long=given.long)
    print(json.dumps(figures, indent=2))
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2))
    for problem in figures["problems"]:
        print(problem, file=sys.stderr)
    if not figures["problems"] and given.folder is None:
        shutil.rmtree(folder)
    return 1 if figures["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
