"""Every query of every dashboard has an answer: the whole product runs, learns and swaps, and a Prometheus scrapes it.

Nothing of it is imitated: vLLM, Kafka and the trainer are the real ones, on a tiny model. The run goes on until the
gate has let a version through and has objected to one, and on for as long as a rate looks back. A panel is left out
only if it says itself that it needs what is not here: `ABSENT`.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlhf_online.config import LogSettings
from tests.ops.dashboards.pictures import draw, last_whole
from tests.support.circle import PROMPTS, chat, settings, vote
from tests.support.dashboards import every_query, files, read
from tests.support.kafka_broker import Broker, needed
from tests.support.prometheus import Prometheus
from tests.support.scraped import targets
from tests.support.stack import Stack, start
from tests.support.waiting import ENGINE_TEST_S

pytestmark = [pytest.mark.ops, pytest.mark.timeout(ENGINE_TEST_S), *needed()]

ROUNDS = 20
WINDOW_S = 30.0
ABSENT = {"a canary", "people's verdict on several versions"} | (
    {"a GPU"} if shutil.which("nvidia-smi") is None else set()
)
"""What panels need that this run does not have: whole weights have no canaries, and one person is no verdict."""
SCRAPED_S = STEP_S = 5.0
PROMOTED = 'sum(rlhf_trainer_cycles_total{outcome="promoted"}) > 0 and sum(rlhf_swaps_total{outcome="ok"}) > 1'
OBJECTED = 'sum(rlhf_gate_verdicts_total{verdict="objected"}) > 0'
SCORED = "rlhf_trainer_score_psi >= 0"
"""Enough answers to tell whether their scores drift."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over, and the server that saw it."""

    server: Prometheus
    began: float
    ended: float

    def answer(self, promql: str, instant: bool) -> bool:
        """Whether there is a number."""
        if instant:
            return any(series.points for series in self.server.instant(promql, self.ended))
        return any(series.points for series in self.server.range(promql, self.began, self.ended, STEP_S))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("dashboards")
    broker = Broker(folder / "kafka")
    broker.start()
    stack = start(settings(folder, LogSettings(url=f"kafka://{broker.address}"), min_win_rate=0.5))
    server = None
    try:
        stack.wait(lambda: targets(stack.state), "all services open their ports")
        server = Prometheus(folder / "prometheus", targets(stack.state), every_s=SCRAPED_S)
        began = time.time()
        stack.wait(stack.ready, "the engine serves")
        live(stack, server)
        yield Run(server, began, last_whole(server, began))
    finally:
        stack.stop()
        broker.stop()
        if server is not None:
            server.stop()


def live(stack: Stack, server: Prometheus) -> None:
    """People chat and vote until versions were swapped, one was refused, drift can be told, and a window longer."""
    acknowledged: set[str] = set()
    for _ in range(ROUNDS):
        talk(stack, acknowledged)
        if all(server.instant(seen) for seen in (PROMOTED, OBJECTED, SCORED)):
            break
    else:
        raise AssertionError(f"in {ROUNDS} rounds too little happened\n{stack.tail()}")
    rates_known = time.monotonic() + WINDOW_S
    while time.monotonic() < rates_known:
        talk(stack, acknowledged)


def talk(stack: Stack, acknowledged: set[str]) -> None:
    """Votes of every kind, and an answer long enough to have gaps between its tokens."""
    vote(stack, acknowledged)
    stack.stream({"messages": [{"role": "user", "content": PROMPTS[0]}], "max_tokens": 64, "ignore_eos": True})
    again = {"answer": {"completion_id": chat(stack, PROMPTS[0])["rlhf"]["completion_id"]}, "signal": "regenerate"}
    assert stack.post("/v1/feedback", {"user": "ada", "implicit": again})[0] == 200


def test_no_panel_is_empty(run: Run) -> None:
    shown = f"{round(run.ended - run.began)}s"
    asked = [query for query in every_query() if query.needs not in ABSENT]
    assert [
        query.name for query in asked if not run.answer(query.filled(f"{WINDOW_S:.0f}s", shown), query.instant)
    ] == []


def test_the_pictures_of_the_documentation_can_be_drawn(run: Run, tmp_path: Path) -> None:
    for path in files():
        draw(read(path), run.server, run.began, run.ended, tmp_path / f"{path.stem}.png")
        assert (tmp_path / f"{path.stem}.png").stat().st_size > 10_000
