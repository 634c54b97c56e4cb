"""What is tried again, and what ends it."""

import threading

import pytest

from rlhf_online.errors import CheckpointError, EngineUnavailable, InvalidInput, LogUnavailable, RewardUnavailable
from rlhf_online.training import retrier
from rlhf_online.training.retrier import Retrier, Stopped


class Waits(threading.Event):
    """An event that nobody has to wait for; it is set after so many waits of more than no time."""

    def __init__(self, stop_after: int) -> None:
        super().__init__()
        self.asked: list[float] = []
        self._stop_after = stop_after

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        if timeout:
            self.asked.append(timeout)
        return len(self.asked) >= self._stop_after


def test_what_is_away_is_asked_again_ever_more_slowly_and_people_are_told() -> None:
    away = [RewardUnavailable("a"), EngineUnavailable("b"), LogUnavailable("c"), CheckpointError("d"), OSError("e")]
    waits, told = Waits(99), []
    failures = iter(away)

    def action() -> str:
        if (error := next(failures, None)) is not None:
            raise error
        return "there"

    assert Retrier(waits, lambda doing, error: told.append((doing, error))).call("asking", action) == "there"
    assert told == [("asking", error) for error in away]
    assert len(waits.asked) == 5 and all(0 < seconds <= retrier.LONGEST_WAIT_S for seconds in waits.asked)
    assert waits.asked[-1] > waits.asked[0]


def test_a_mistake_is_not_tried_again() -> None:
    def action() -> None:
        raise InvalidInput("wrong")

    told: list[str] = []
    with pytest.raises(InvalidInput):
        Retrier(Waits(99), lambda doing, error: told.append(doing)).call("asking", action)
    assert told == []


def test_who_must_stop_waits_no_longer_and_begins_nothing() -> None:
    def away() -> None:
        raise OSError("away")

    waits = Waits(2)
    with pytest.raises(Stopped):
        Retrier(waits, lambda doing, error: None).call("asking", away)
    assert len(waits.asked) == 2
    with pytest.raises(Stopped):
        Retrier(waits, lambda doing, error: None).call("asking", lambda: pytest.fail("it must not begin"))


def test_to_check_takes_no_time() -> None:
    waits = Waits(99)
    Retrier(waits, lambda doing, error: None).check()
    assert waits.asked == []
