"""A short kill run; `make faults KILLS=1000` is the long one."""

from pathlib import Path

from tests.faults.kills import Kill, plan, run
from tests.support.kafka_broker import needed

pytestmark = needed()


def test_a_seed_says_what_is_killed_and_when() -> None:
    kills = plan(1000, seed=1)
    assert kills == plan(1000, seed=1) != plan(1000, seed=2)
    assert kills[:100] == plan(100, seed=1)
    count = {kind: sum(kill.kind == kind for kill in kills) for kind in ("chat", "forwarder", "broker", "trainer")}
    assert min(count.values()) > 100
    assert all(any(kill.starting for kill in kills if kill.kind == kind) for kind in ("chat", "broker", "trainer"))
    assert all(isinstance(kill, Kill) and 0 <= kill.share < 1 for kill in kills)
    assert {kill.kind for kill in kills if kill.stop} == {"chat", "broker", "trainer"}


def test_a_dozen_kills_and_stops_lose_nothing_and_nothing_is_trained_on_twice(tmp_path: Path) -> None:
    """While the disk is full for a while, and some clients do not play along: who does, is answered, and may vote."""
    figures = run(tmp_path, kills=12, seed=690, minutes=5)
    assert figures["problems"] == []
    assert (sum(figures["kills"].values()), figures["stops"]) == (10, 2)
    assert all(figures["kills"][kind] for kind in ("broker", "trainer")), "the seed has some of each"
    assert (figures["lost"], figures["trained_twice"]) == (0, 0)
    assert figures["accepted"] == figures["in_kafka"] > 0
    assert figures["resumed"] > 0, "a trainer went on where another was killed"
