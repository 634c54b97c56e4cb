"""Appends awaited on an event loop: each gets its own answer, whoever gives up, however many there are."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog.acknowledgements import Acknowledgements
from rlhf_online.eventlog.local import LocalLog

WITHIN_S = 60.0


async def test_each_of_many_gets_its_own_number(tmp_path: Path) -> None:
    acknowledgements = Acknowledgements()
    with LocalLog(tmp_path) as log:
        numbers = await asyncio.gather(*(acknowledgements.of(log.append(b"x"), WITHIN_S) for _ in range(2_000)))
    assert numbers == list(range(2_000))


async def test_a_failure_is_raised_to_its_own_waiter() -> None:
    acknowledgements = Acknowledgements()
    good, bad, cancelled = Future[int](), Future[int](), Future[int]()
    waiters = [asyncio.ensure_future(acknowledgements.of(each, WITHIN_S)) for each in (good, bad, cancelled)]
    await asyncio.sleep(0)
    cancelled.cancel()
    bad.set_exception(LogUnavailable("the disk"))
    threading.Thread(target=good.set_result, args=(7,)).start()
    got = await asyncio.gather(*waiters, return_exceptions=True)
    assert got[0] == 7
    assert isinstance(got[1], LogUnavailable)
    assert isinstance(got[2], asyncio.CancelledError)


async def test_who_gives_up_leaves_the_append_and_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    acknowledgements = Acknowledgements()
    one, two = Future[int](), Future[int]()
    gone, stays = (asyncio.ensure_future(acknowledgements.of(each, WITHIN_S)) for each in (one, two))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert not one.cancelled()
    one.set_result(1)
    two.set_result(2)
    assert await stays == 2
    assert caplog.records == [], "nothing has gone wrong behind the back of either"


async def test_one_that_takes_too_long_is_given_up_and_resolves_all_the_same() -> None:
    acknowledgements, late = Acknowledgements(), Future[int]()
    with pytest.raises(TimeoutError):
        await acknowledgements.of(late, 0.001)
    late.set_result(1)
    assert await acknowledgements.of(late, WITHIN_S) == 1


async def test_the_loop_is_woken_once_for_all_that_are_resolved_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    acknowledgements, loop = Acknowledgements(), asyncio.get_running_loop()
    woken: list[Callable[[], object]] = []
    wake = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda callback: woken.append(callback) or wake(callback))
    for _ in range(2):
        appended = [Future[int]() for _ in range(100)]
        waiters = [asyncio.ensure_future(acknowledgements.of(each, WITHIN_S)) for each in appended]
        await asyncio.sleep(0)
        woken.clear()
        for number, future in enumerate(appended):
            future.set_result(number)
        assert await asyncio.gather(*waiters) == list(range(100)) and len(woken) == 1


def test_an_answer_that_comes_after_the_loop_has_ended_troubles_nobody(caplog: pytest.LogCaptureFixture) -> None:
    late = Future[int]()

    async def give_up() -> None:
        waiting = asyncio.ensure_future(Acknowledgements().of(late, WITHIN_S))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(give_up())
    late.set_result(1)
    assert caplog.records == []
