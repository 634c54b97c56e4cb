"""The queue before the disk: how much may wait, what is taken out together, and what becomes of the rest."""

import threading
from pathlib import Path

import pytest

from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog.append_queue import AppendQueue, Group
from rlhf_online.eventlog.segments import HEADER
from tests.support.waiting import until

RECORD = HEADER.size + 10


@pytest.fixture
def queue(tmp_path: Path) -> AppendQueue:
    return AppendQueue(tmp_path, 30, group_bytes=2 * RECORD)


def test_as_much_waits_as_it_says_and_not_a_byte_more(queue: AppendQueue) -> None:
    for _ in range(3):
        queue.put(bytes(10))
    with pytest.raises(LogUnavailable, match="30 bytes wait for the disk"):
        queue.put(b"x")
    assert queue.take(None) and queue.put(bytes(20)), "what was taken out makes room"


def test_one_record_is_taken_however_large(queue: AppendQueue) -> None:
    large = queue.put(bytes(100))
    assert queue.take(None) == [((bytes(100),), large)]


def test_a_group_is_as_large_as_it_may_be(queue: AppendQueue) -> None:
    futures = [queue.put(bytes(10)) for _ in range(3)]
    assert queue.take(None) == [((bytes(10),), future) for future in futures[:2]]
    assert queue.take(None) == [((bytes(10),), futures[2])]
    assert queue.take(0.001) == [], "nothing has come"


def test_what_is_put_in_together_is_taken_out_together(queue: AppendQueue) -> None:
    alone, together = queue.put(bytes(10)), queue.put(bytes(5), bytes(5))
    assert queue.take(None) == [((bytes(10),), alone)], "both halves would be more than a group"
    assert queue.take(None) == [((bytes(5), bytes(5)), together)]


def test_a_record_that_is_not_wanted_any_more_is_left_out(queue: AppendQueue) -> None:
    unwanted, wanted = queue.put(b"a"), queue.put(b"b")
    assert unwanted.cancel()
    assert queue.take(None) == [((b"b",), wanted)]


def test_closed_it_takes_no_more_and_gives_what_waits(queue: AppendQueue) -> None:
    waiting = queue.put(b"a")
    queue.close()
    with pytest.raises(LogUnavailable, match="is closed"):
        queue.put(b"b")
    assert queue.take(None) == [((b"a",), waiting)]
    assert queue.take(None) is None


def test_where_nobody_takes_any_more_those_who_wait_are_told(queue: AppendQueue) -> None:
    waiting = queue.put(b"a")
    queue.fail()
    with pytest.raises(LogUnavailable, match=r"the writer of the log .* stopped"):
        waiting.result(0)
    with pytest.raises(LogUnavailable, match="is closed"):
        queue.put(b"b")


def test_whoever_gave_up_is_told_nothing_when_nobody_takes_any_more(queue: AppendQueue) -> None:
    unwanted, waiting = queue.put(b"a"), queue.put(b"b")
    assert unwanted.cancel()
    queue.fail()
    assert isinstance(waiting.exception(0), LogUnavailable) and unwanted.cancelled()


def test_who_waits_for_records_gets_them_as_they_come_and_hears_of_the_end(queue: AppendQueue) -> None:
    taken: list[Group | None] = []
    taker = threading.Thread(target=lambda: taken.extend([queue.take(None), queue.take(None)]), daemon=True)
    taker.start()
    until(taker.is_alive, 30, "somebody to wait")
    coming = queue.put(b"a")
    until(lambda: len(taken) or coming.running(), 30, "it to be taken")
    queue.close()
    taker.join(30)
    assert taken == [[((b"a",), coming)], None]
