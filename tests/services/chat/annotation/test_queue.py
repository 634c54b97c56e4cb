"""Reservations by the clock, and people who ask at the same moment from many threads."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_online.errors import FileDamaged
from rlhf_online.events import SHOWN, WITHHELD, Erasure, Feedback
from services.chat.annotation.database import FILE, QueueDatabase
from services.chat.annotation.items import ItemNote
from services.chat.annotation.queue import Item, Queue
from services.chat.annotation.votes import LEASE_MS, erase, take_vote
from services.chat.comparisons.replies import ComparedAnswer
from tests.support.logged import thumb

BEGIN_MS = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.ms = BEGIN_MS

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[QueueDatabase]:
    database = QueueDatabase(tmp_path)
    yield database
    database.close()


@pytest.fixture
def queue(database: QueueDatabase, clock: Clock) -> Queue:
    return Queue(database, clock)


def item(name: str, people: int = 1, answers: int = 1) -> Item:
    shown = [
        ComparedAnswer(answer={"completion_id": name, "index": index}, text="", reasoning="", finish_reason="stop")
        for index in range(answers)
    ]
    return Item(item_id=name, people=people, messages=[], answers=shown, origins=frozenset())


def given(queue: Queue, person: str) -> str:
    held = queue.next(person)
    return held.item_id if held else ""


def judge(queue: Queue, database: QueueDatabase, name: str, person: str) -> None:
    """A vote that is accepted, and then read from the log."""
    sent = thumb(name)
    assert isinstance(sent.event, Feedback)
    with database.transaction() as rows:
        take_vote(rows, sent.event_id, queue.marked(replace(sent.event, person=person)))


def test_what_is_not_judged_in_time_is_given_to_others(queue: Queue, clock: Clock) -> None:
    queue.add(item("a"))
    assert (given(queue, "ann"), given(queue, "bob")) == ("a", "")
    clock.ms += LEASE_MS - 1
    assert given(queue, "bob") == ""
    assert given(queue, "ann") == "a", "asking again renews it"
    clock.ms += LEASE_MS - 1
    assert given(queue, "bob") == ""
    clock.ms += 1
    assert queue.counts().in_progress == 0
    assert (given(queue, "bob"), given(queue, "ann")) == ("a", "")


def test_a_vote_that_comes_late_counts(queue: Queue, database: QueueDatabase, clock: Clock) -> None:
    queue.add(item("a"))
    given(queue, "ann")
    clock.ms += LEASE_MS
    given(queue, "bob")
    judge(queue, database, "a", "ann")
    assert queue.counts().finished == 1
    assert given(queue, "bob") == "a", "bob may finish what he holds"
    judge(queue, database, "a", "bob")
    assert dict((person, judged) for person, judged, _ in queue.counts().people) == {"ann": 1, "bob": 1}


def test_one_person_alone_can_finish_a_queue(queue: Queue, database: QueueDatabase, clock: Clock) -> None:
    """What they let expire comes again when all else is done; what they judged or skipped does not."""
    for name in ("a", "b", "c"):
        queue.add(item(name))
    assert given(queue, "ann") == "a"
    clock.ms += LEASE_MS
    assert given(queue, "ann") == "b"
    judge(queue, database, "b", "ann")
    assert not queue.skip("b", "ann", "")
    assert given(queue, "ann") == "c"
    assert queue.skip("c", "ann", "no words for it")
    assert given(queue, "ann") == "a"
    judge(queue, database, "a", "ann")
    clock.ms += 10 * LEASE_MS
    assert given(queue, "ann") == ""


def test_chance_decides_the_order_for_each_person(queue: Queue) -> None:
    queue.add(item("a", people=40, answers=2))
    held = [queue.next(f"person {number}") for number in range(40)]
    assert {tuple(answer["answer"]["index"] for answer in one.answers) for one in held if one} == {(0, 1), (1, 0)}


def test_threads_that_race_give_each_item_to_as_many_as_it_wants(queue: Queue) -> None:
    for number in range(10):
        queue.add(item(f"item {number}", people=3))
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda number: given(queue, f"person {number}"), range(50)))
    assert Counter(found) == {**{f"item {number}": 3 for number in range(10)}, "": 20}


def test_a_database_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database, whatever its name says" * 100)
    with pytest.raises(FileDamaged, match="remove it and add the items again: no vote is lost"):
        QueueDatabase(tmp_path)


def test_of_who_erased_everything_nothing_is_left_and_others_are_asked(queue: Queue, database: QueueDatabase) -> None:
    queue.add(item("a"))
    queue.add(item("b"))
    assert given(queue, "ann") == "a"
    judge(queue, database, "a", "ann")
    assert given(queue, "ann") == "b" and queue.skip("b", "ann", "what she wrote")
    assert given(queue, "bob") == "b"
    judge(queue, database, "b", "bob")
    with database.transaction() as rows:
        erase(rows, Erasure(conversation_id="", person="ann", erased_ms=BEGIN_MS))
    assert queue.counts().people == [("bob", 1, 0)] and queue.counts().finished == 1
    assert given(queue, "eve") == "a"
    database.scrub()
    assert b"what she wrote" not in database.path.read_bytes()


def test_half_of_the_people_see_a_critics_notes_always_the_same_ones_and_their_votes_say_so(
    queue: Queue, database: QueueDatabase, clock: Clock
) -> None:
    note = ItemNote(answer={"completion_id": "a", "index": 0}, quote="fig", fault="no metal")
    queue.add(replace(item("a", people=100), notes=[note]))
    queue.add(item("b", people=100))
    people = [f"person {number}" for number in range(60)]
    seen: dict[str, bool] = {}
    for person in people:
        held = queue.next(person)
        assert held is not None and held.item_id == "a" and held.notes in ([note], [])
        again = Queue(database, clock).next(person)
        assert again == held, "a restart changes nothing"
        seen[person] = bool(held.notes)
        marked = queue.marked(replace(_vote("a"), person=person))
        assert (marked.annotation_item, marked.notes) == ("a", SHOWN if seen[person] else WITHHELD)
        judge(queue, database, "a", person)
        other = queue.next(person)
        assert other is not None and (other.item_id, other.notes) == ("b", [])
        assert queue.marked(replace(_vote("b"), person=person)).notes == ""
    assert 15 < sum(seen.values()) < 45
    assert queue.marked(replace(_vote("a"), person="somebody else")).notes == "", "who was not given it saw nothing"


def _vote(name: str) -> Feedback:
    sent = thumb(name)
    assert isinstance(sent.event, Feedback)
    return sent.event
