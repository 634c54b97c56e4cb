"""The circle once through a real Kafka: votes are shipped, and a trainer that is killed learns from the topics."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_online.config import LogSettings
from rlhf_online.simulation.vote_counts import count_votes
from tests.faults.auditor import audit
from tests.support.circle import CYCLE_VOTES, live, pid, served, settings, vote
from tests.support.kafka_broker import Broker, missing_tools
from tests.support.stack import Stack, start
from tests.support.waiting import ENGINE_TEST_S

# kafka-python reads its schemas by functions of the standard library that Python 3.11 and 3.12 call deprecated.
pytestmark = [
    pytest.mark.timeout(ENGINE_TEST_S),
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
    pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "-"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("circle")


@pytest.fixture(scope="module")
def log(folder: Path) -> Iterator[LogSettings]:
    broker = Broker(folder / "kafka")
    broker.start()
    yield LogSettings(url=f"kafka://{broker.address}")
    broker.stop()


@pytest.fixture(scope="module")
def stack(folder: Path, log: LogSettings) -> Iterator[Stack]:
    running = start(settings(folder, log))
    try:
        yield running
    finally:
        running.stop()


def test_votes_reach_the_trainer_through_kafka_once_though_it_is_killed(stack: Stack, log: LogSettings) -> None:
    acknowledged: set[str] = set()
    stack.wait(stack.ready, "the engine serves")
    vote(stack, acknowledged)
    stack.wait(lambda: live(stack) > "policy-000000", "a version is promoted")
    os.kill(pid(stack, "trainer"), signal.SIGKILL)
    before = live(stack)
    vote(stack, acknowledged, 2 * CYCLE_VOTES)
    stack.wait(lambda: live(stack) > before, "a version by the restarted trainer")
    stack.wait(lambda: served(stack) > before, "it answers")
    ours = frozenset(acknowledged)

    def taken_in() -> bool:
        counts = count_votes(stack.state, log, ours)
        if counts.trained + counts.held_out == counts.accepted:
            return True
        vote(stack, acknowledged, CYCLE_VOTES)
        return False

    stack.wait(taken_in, "every vote has been taken in")
    counts = count_votes(stack.state, log, ours)
    assert counts.accepted == len(ours)
    assert (counts.trained_twice, counts.orphaned, counts.dead_lettered) == (0, 0, 0)
    report = audit(stack.state.root, acknowledged, kafka=log.url.removeprefix("kafka://"))
    assert report.problems == []
    assert report.in_kafka + report.spooled == report.accepted == len(acknowledged)
