"""`make demo`: the whole loop in the tiny world, with real services, seeded people and a true reward that is known.

    write the model's folder ─▶ services start (vLLM loads) ─┐
                             └▶ supervised fine-tuning ──────┴▶ first version ─▶ measure ─▶ live traffic ─▶ measure
                                                                 people chat and vote │ trainer learns │ weights swap

Nothing that learns knows the true reward: people vote through the public API, the trainer reads the log. It ends by
itself with a report in `--out`: report.json, report.png, report.html. Every child ends with it, however it ends.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rlhf_online.config import LogSettings
from rlhf_online.config.given import Values
from rlhf_online.durable import write_json
from rlhf_online.errors import InvalidInput, RlhfError
from rlhf_online.process import report_error
from rlhf_online.simulation import charts, people, processes, report, view, vote_counts, world
from rlhf_online.simulation.client import ChatClient, RequestFailed
from rlhf_online.simulation.status_poller import StatusPoller
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.simulation.traffic import Measurement, TrafficGenerator, measure
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import genesis

CLOSING_S = 45.0
"""What comes after the traffic: the last cycle's swap, the last measurement, the report."""
MIN_TRAFFIC_S = 60.0
SETTLE_S = 60.0
PROBE_EVERY_S = 45.0
PEOPLE = 24
ANSWERS_A_PROMPT = 16
TRAINER_DIES_AT, ENGINE_DIES_AT = 0.40, 0.65


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line. `minutes` is the whole run's, start included."""

    seed: int
    minutes: float
    votes: people.Mode
    out: Path
    rate: float
    stay: bool = False
    chaos: bool = False
    plain: bool = False
    resume: bool = False
    port: int = 0

    @property
    def state(self) -> StateDir:
        return StateDir(self.out / "state")


def parse(arguments: list[str] | None = None) -> Options:
    """The command line; ends the process with code 2 and a message where it is wrong."""
    parser = argparse.ArgumentParser(prog="make demo", description="The loop in the tiny world.")
    parser.add_argument("--seed", type=int, default=0, help="seed of people, demonstrations and training")
    parser.add_argument("--minutes", type=float, default=9.0, help="length of the whole run, start included")
    parser.add_argument("--votes", choices=("people", "random", "inverted"), default="people", help="how people vote")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder of the run and its report")
    parser.add_argument("--rate", type=float, default=14.0, help="conversations begun a second")
    parser.add_argument("--port", type=int, default=0, help="port of the chat service; 0: the system chooses")
    parser.add_argument("--stay", action="store_true", help="go on serving after the report, until Ctrl-C")
    parser.add_argument("--chaos", action="store_true", help="SIGKILL the trainer and the engine under traffic")
    parser.add_argument("--plain", action="store_true", help="lines instead of the live view")
    parser.add_argument("--resume", action="store_true", help="go on from the state that is in --out")
    options = parser.parse_args(arguments)
    if options.minutes <= 0 or options.rate <= 0:
        parser.error("--minutes and --rate must be more than 0")
    options.out = options.out.resolve()
    return Options(**vars(options))


def settings(options: Options) -> Values:
    """The settings of services/standalone, tuned to the tiny world on two cores (docs/LOG.md has what was tried)."""
    answer = world.MAX_ANSWER_TOKENS
    return {
        "state_dir": str(options.state.root),
        "ready_file": str(options.state.run / "standalone.json"),
        "die_with_parent": True,
        "model": str(options.out / "model"),
        "tuning": "full",
        "chat": {
            "http_port": options.port,
            "grpc_port": 0,
            "engine": {"max_model_len": 64, "max_num_seqs": 64, "kv_cache_gib": 0.25},
            "limits": {"max_tokens": answer},
        },
        "trainer": {
            **TRAINER,
            "seed": options.seed,
            "rollout": {**TRAINER["rollout"], "max_tokens": answer},
        },
    }


TRAINER: Values = {
    "min_votes": 75,
    "cold_votes": 350,
    "reward": {"lr": 1e-3, "batch": 16, "epochs": 2, "cold_epochs": 4, "replay": 3.0},
    "policy": {"lr": 6e-4, "epochs": 2, "max_step_kl": 2.0, "algorithm": {"name": "ppo", "kl_coef": 0.2}},
    "rollout": {"per_cycle": 512, "answers_per_prompt": 4},
    "gate": {"kl": {"max": 12.0}, "samples": 96},
}


class Demo:
    """One run. `dashboard` is what the view draws."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.registry = open_registry(options.state.versions)
        self.dashboard = view.Dashboard(f"online RLHF · tiny world · seed {options.seed} · votes: {options.votes}")
        self.restarts: dict[str, str] = {}
        dashboard = self.dashboard
        self._tune = dashboard.step("supervised fine-tuning")
        self._start = dashboard.step("services and engine start")
        self._before = dashboard.step("measure the first version")
        self._live = dashboard.step("live: people chat, vote, weights swap")
        self._settle = dashboard.step("the last votes become weights")
        self._after = dashboard.step("measure the last version")

    async def run(self) -> int:
        """The exit code. Raises RlhfError."""
        services = None
        shown = asyncio.Event()
        drawing = asyncio.create_task(view.show(self.dashboard, shown, plain=self.options.plain))
        try:
            services = await self._open()
            run = await self._record_run(services)
            shown.set()
            await drawing
            self._report(run)
            if self.options.stay:
                print(f"\nserving at {services.url} (Ctrl-C ends it)", flush=True)
                await services.child.process.wait()
                raise services.child.failed()
            return 0
        finally:
            shown.set()
            await asyncio.gather(drawing, return_exceptions=True)
            if services is not None:
                await services.stop()

    async def _open(self) -> processes.Services:
        """Start the services and fine-tune meanwhile; ready when the first version serves."""
        options = self.options
        fresh(options)
        write_tiny_model(options.out / "model", weights_seed=None)
        self._start.begin()
        services = await processes.Services.start(
            settings(options), options.out / "services.toml", options.state.logs / "standalone.log"
        )
        try:
            if self.registry.live("policy") is None:
                await self._first_version(services)
            self._tune.end()
            self.dashboard.url = await services.listening()
            await services.ready()
        except BaseException:
            await services.stop()
            raise
        self._start.end()
        return services

    async def _first_version(self, services: processes.Services) -> None:
        self._tune.begin()

        def tell(step: int, steps: int, loss: float) -> None:
            self._tune.done, self._tune.total, self._tune.note = step, steps, f"loss {loss:.2f}"

        tuned = self.options.out / "sft"
        tuning = asyncio.create_task(
            processes.fine_tune(
                self.options.out / "model",
                tuned,
                seed=self.options.seed,
                log=self.options.state.logs / "sft.log",
                tell=tell,
            )
        )
        ended = asyncio.create_task(services.child.process.wait())
        try:
            await asyncio.wait({tuning, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise services.child.failed()
            await tuning
        finally:
            for task in (tuning, ended):
                task.cancel()
            await asyncio.gather(tuning, ended, return_exceptions=True)
        await asyncio.to_thread(genesis, self.registry, tuned, tuning="full")

    async def _record_run(self, services: processes.Services) -> report.Run:
        """Measure the first version, generate traffic, measure the last one."""
        options, dashboard = self.options, self.dashboard
        poller = StatusPoller(options.state, self.registry, dashboard)
        polling = asyncio.create_task(poller.run())
        try:
            async with ChatClient(services.url, dashboard.records.traffic, max_tokens=world.MAX_ANSWER_TOKENS) as chat:
                dashboard.first = await self._measure(chat, self._before)
                await self._traffic(services, chat)
                await self._wait_until_idle(poller)
                dashboard.last = await self._measure(chat, self._after)
        finally:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
        poller.poll()
        return report.Run(
            seed=options.seed,
            votes=options.votes,
            wall_s=time.monotonic() - dashboard.started,
            first=dashboard.first,
            last=dashboard.last,
            records=dashboard.records,
            versions=poller.facts(),
            swap_pauses_s=poller.swap_pauses(),
            vote_counts=vote_counts.count_votes(options.state, LogSettings(), set(dashboard.records.acks)),
            restarts=dict(self.restarts),
            steps_s={step.title: step.seconds for step in dashboard.steps},
            history=poller.history(),
        )

    async def _measure(self, chat: ChatClient, step: view.Step) -> Measurement:
        prompts = world.held_out_prompts()
        step.total = len(prompts)
        step.begin()

        def progress(done: int) -> None:
            step.done = done

        try:
            measured = await measure(
                chat, prompts, answers=ANSWERS_A_PROMPT, records=self.dashboard.records, progress=progress
            )
        except RequestFailed as error:
            raise processes.DemoError(
                f"a measurement stopped since a request failed ({error.kind}): the services' logs are in "
                f"{self.options.state.logs}"
            ) from error
        step.end(f"{measured.mean:+.3f} ± {measured.stderr:.3f}")
        return measured

    async def _traffic(self, services: processes.Services, chat: ChatClient) -> None:
        options, dashboard, step = self.options, self.dashboard, self._live
        spent = time.monotonic() - dashboard.started
        step.total = max(MIN_TRAFFIC_S, options.minutes * 60 - spent - CLOSING_S)
        step.begin()
        stop = asyncio.Event()
        public = people.population(PEOPLE, seed=options.seed, mode=options.votes)
        traffic = TrafficGenerator(chat, public, dashboard.records, seed=options.seed, rate=options.rate)
        async with asyncio.TaskGroup() as group:
            talking = group.create_task(traffic.run(stop))
            helpers = [group.create_task(self._probes(chat))]
            if options.chaos:
                helpers.append(group.create_task(self._chaos(services, step.total)))
            while step.seconds < step.total and not services.child.ended:
                step.done = min(step.seconds, step.total)
                await asyncio.sleep(0.25)
            stop.set()
            await talking
            for helper in helpers:
                helper.cancel()
        if services.child.ended:
            raise services.child.failed()
        step.end()

    async def _probes(self, chat: ChatClient) -> None:
        """Measure on the held-out prompts every now and then, one answer each."""
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            try:
                self.dashboard.probe = await measure(chat, world.held_out_prompts(), answers=1, concurrency=2)
            except RequestFailed:
                continue

    async def _chaos(self, services: processes.Services, total: float) -> None:
        """Kill the trainer, later the engine, and record how they came back."""
        root = services.child.process.pid
        for name, pattern, share in (
            ("trainer", "services.trainer", TRAINER_DIES_AT),
            ("engine", "rlhf_online.engine.serve", ENGINE_DIES_AT),
        ):
            await asyncio.sleep(max(0.0, share * total - self._live.seconds))
            killed = processes.kill(root, pattern)
            at = self._live.seconds
            self.restarts[name] = f"killed at {at:.0f} s of the traffic"
            self.dashboard.chaos.append(f"SIGKILL: {name} (process {killed})")
            if killed is None:
                raise processes.DemoError(f"no {name} process was found to kill")
            await _wait_for_restart(root, pattern, killed)
            self.restarts[name] += f", a new process after {self._live.seconds - at:.1f} s"
            if name == "engine":
                await services.ready()
                self.restarts[name] += f", answering again after {self._live.seconds - at:.0f} s"
            self.dashboard.chaos.append(f"{name}: {self.restarts[name]}")

    async def _wait_until_idle(self, poller: StatusPoller) -> None:
        """Wait until the trainer is idle and its last version serves, SETTLE_S at most."""
        self._settle.total = SETTLE_S
        self._settle.begin()
        while self._settle.seconds < SETTLE_S and not poller.idle():
            self._settle.done = self._settle.seconds
            await asyncio.sleep(0.5)
        self._settle.end()

    def _report(self, run: report.Run) -> None:
        out, values = self.options.out, report.numbers(run)
        write_json(out / "report.json", values)
        charts.draw(values, run.history, out / "report.png")
        rng = random.Random(self.options.seed)
        shown = sorted(rng.sample(range(len(run.first.samples)), 16))
        before, after = ([measured.samples[index] for index in shown] for measured in (run.first, run.last))
        charts.write_html(values, out / "report.png", before, after, out / "report.html")
        print(report.summary(values, chaos=self.options.chaos))
        print(f"report: {out / 'report.html'} (report.png, report.json)", flush=True)


async def _wait_for_restart(root: int, pattern: str, killed: int) -> None:
    """Wait until another process than `killed` has the pattern in its command line."""

    def there() -> bool:
        return any(pattern in command for pid, command in processes.descendants(root).items() if pid != killed)

    while True:
        if await asyncio.to_thread(there):
            return
        await asyncio.sleep(0.25)


def fresh(options: Options) -> None:
    """An empty place for the run, unless it is to go on from what is there. Raises InvalidInput."""
    out = options.out
    if options.resume:
        if not options.state.root.is_dir():
            raise InvalidInput(f"there is nothing to resume in {out}: leave --resume away")
        return
    if out.exists() and any(out.iterdir()) and not (out / "services.toml").is_file():
        raise InvalidInput(f"{out} holds something that is no demo's: give an empty folder with --out")
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)


async def perform(options: Options) -> int:
    """Run the demo; Ctrl-C and SIGTERM end it in order."""
    running = asyncio.current_task()
    assert running is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    try:
        return await Demo(options).run()
    except asyncio.CancelledError:
        print("stopped", file=sys.stderr)
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        return asyncio.run(perform(options))
    except ExceptionGroup as group:
        known, unknown = group.split(RlhfError)
        if unknown is not None or known is None:
            raise
        return report_error(_leaf(known))
    except RlhfError as error:
        return report_error(error)


def _leaf(error: BaseException) -> RlhfError:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, RlhfError)
    return error


if __name__ == "__main__":
    sys.exit(main())
