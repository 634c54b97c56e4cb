"""Answers meet feedback in whatever order they come, once, within the window, and across a restart."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_online import events as ev
from rlhf_online.feedback.answer_store import AnswerStore
from rlhf_online.feedback.join import Join
from tests.support.logged import completion, feedback, ref, thumb


def _dead(join: Join) -> list[tuple[str, str, str]]:
    return [(event_id, why.reason, str(why)) for event_id, _, why in join.dead_lettered]


WINDOW_MS = 1_000
New = Callable[..., Join]


@pytest.fixture
def new(tmp_path: Path) -> New:
    """Makes a join whose clock follows every event."""

    def make(capacity: int = 1_000, **bounds: int) -> Join:
        return Join(AnswerStore(tmp_path, capacity), WINDOW_MS, **{"clock_events": 1, **bounds})

    return make


def restarted(join: Join) -> Join:
    """What a trainer has after a stop: the state that went through JSON, the answers from their files."""
    names = join.answers.seal()
    values = json.loads(json.dumps(join.to_json()))
    answers = AnswerStore.load(join.answers.folder, names, values["answers"]["first"], values["answers"]["came"])
    again = Join.from_json(values, answers, WINDOW_MS, clock_events=1)
    again.dead_lettered = join.dead_lettered  # which the caller takes before a stop
    return again


def test_feedback_meets_its_answer_whichever_comes_first(new: New):
    answer, vote = completion("c"), thumb("c", index=1, event_id="vote")
    after, before = new(), new()
    assert after.add(answer) == []
    [joined] = after.add(vote)
    assert before.add(vote) == []
    assert before.pending == 1
    assert before.add(answer) == [joined]
    assert before.pending == after.pending == 0
    assert joined.event_id == "vote"
    assert joined.feedback == vote.event
    assert isinstance(answer.event, ev.Completion)
    assert joined.answers == {ref("c", 1): (answer.event, answer.event.answers[1])}


def test_feedback_over_several_completions_waits_for_the_last(new: New):
    join = new()
    vote = feedback(ev.Ranking(tiers=((ref("b"), ref("a", 1)), (ref("c"), ref("a")))), event_id="rank")
    join.add(completion("a"))
    assert join.add(vote) == []
    assert join.add(completion("b")) == []
    assert join.pending == 1
    [joined] = join.add(completion("c"))
    assert list(joined.answers) == [ref("b"), ref("a", 1), ref("c"), ref("a")]
    assert [completion.completion_id for completion, _ in joined.answers.values()] == ["b", "a", "c", "a"]


def test_several_votes_on_one_answer_leave_in_the_order_in_which_they_came(new: New):
    join = new()
    for name in ("one", "two", "three"):
        join.add(thumb("c", event_id=name))
    assert [joined.event_id for joined in join.add(completion("c"))] == ["one", "two", "three"]
    [fourth] = join.add(thumb("c", event_id="four"))
    assert fourth.event_id == "four"


def test_what_is_here_is_not_taken_again(new: New):
    join = new()
    join.add(completion("c"))
    assert join.add(completion("c")) == []
    join.add(thumb("later", event_id="waiting"))
    assert [join.add(thumb("later", event_id="waiting")) for _ in range(100)] == [[]] * 100
    assert join.pending == 1
    assert len(join.add(completion("later"))) == 1
    assert join.duplicates == 101


def test_what_the_window_passed_is_orphaned_once(new: New):
    join = new()
    join.add(thumb("never", event_id="old", at_ms=5_000))
    join.add(thumb("never", event_id="young", at_ms=5_001))
    assert join.expire() == []
    join.add(completion("other", at_ms=6_000))
    assert join.expire() == []
    join.add(completion("another", at_ms=6_001))
    assert [orphan.event_id for orphan in join.expire()] == ["old"]
    assert join.expire() == []
    assert join.pending == 1
    assert [joined.event_id for joined in join.add(completion("never", at_ms=6_001))] == ["young"]


def test_an_answer_that_the_window_passed_is_forgotten(new: New):
    join = new()
    join.add(completion("c", at_ms=1_000))
    join.add(completion("d", at_ms=2_001))
    join.expire()
    assert join.add(thumb("c", at_ms=2_001)) == []
    assert len(join.add(thumb("d", at_ms=2_001))) == 1
    assert join.pending == 1


def test_a_clock_that_was_put_back_closes_nothing(new: New):
    join = new()
    join.add(completion("c", at_ms=10_000))
    join.add(thumb("later", event_id="late", at_ms=100))
    join.add(completion("d", at_ms=100))
    assert join.expire() == []
    assert [joined.event_id for joined in join.add(completion("later", at_ms=10_900))] == ["late"]
    assert len(join.add(thumb("d", at_ms=10_900))) == 1


def test_one_clock_that_is_a_year_ahead_closes_nothing(new: New):
    join = new(clock_events=101)
    year_ms = 365 * 86_400_000
    for number in range(300):
        ahead = year_ms if number % 3 == 1 else 0
        join.add(completion(f"c{number}", at_ms=10_000 + number + ahead))
    join.add(thumb("never", event_id="waiting", at_ms=10_300 + year_ms))
    assert join.expire() == []
    assert len(join.answers) == 300
    for number in range(200):
        join.add(completion(f"d{number}", at_ms=11_500))
    assert [orphan.event_id for orphan in join.expire()] == ["waiting"]
    assert len(join.answers) < 300, "those with the wrong clock have gone with the others"


def test_the_clock_goes_on_over_a_restart(new: New):
    """A single event after it, whose clock is a year ahead, is one of many, as it would be without the restart."""
    join = new(clock_events=101)
    join.add(thumb("never", event_id="waiting", at_ms=10_000))
    for number in range(100):
        join.add(completion(f"c{number}", at_ms=10_000 + number))
    values = json.loads(json.dumps(join.to_json()))
    names = join.answers.seal()
    answers = AnswerStore.load(join.answers.folder, names, values["answers"]["first"], values["answers"]["came"])
    again = Join.from_json(values, answers, WINDOW_MS, clock_events=101)
    for each in (join, again):
        each.add(completion("ahead", at_ms=365 * 86_400_000))
        assert each.expire() == [] and each.to_json() == join.to_json()


def test_feedback_that_waits_is_withdrawn_by_its_person_alone(new: New):
    join = new()
    join.add(thumb("c", event_id="vote"))
    assert not join.withdraw("vote", "somebody else")
    assert not join.withdraw("another", "rater")
    assert join.withdraw("vote", "rater")
    assert join.pending == 0
    assert join.add(completion("c")) == []


def test_bytes_that_wait_are_bounded(new: New):
    join = new(max_pending_bytes=1_000)
    for number in range(30):
        join.add(feedback(ev.Correction(answer=ref("never"), text="x" * 100), event_id=f"v{number}"))
    orphans = [orphan.event_id for orphan in join.expire()]
    assert orphans == [f"v{number}" for number in range(len(orphans))]
    assert 5 <= join.pending == 30 - len(orphans) <= 8


@pytest.mark.parametrize("answer_first", [True, False])
def test_feedback_on_an_answer_that_is_not_there_is_dead_lettered(answer_first: bool, new: New):
    join = new()
    events = [completion("c"), thumb("c", index=2, event_id="vote")]
    for event in events if answer_first else reversed(events):
        assert join.add(event) == []
    assert _dead(join) == [("vote", "missing", "completion c has no answer 2")]
    assert join.pending == 0


def test_feedback_on_nothing_is_dead_lettered(new: New):
    join = new()
    join.add(feedback(ev.Ranking(tiers=((),)), event_id="vote"))
    assert _dead(join) == [("vote", "nothing", "it judges no answer")]


def test_a_version_change_is_no_business_of_the_join(new: New):
    join = new()
    change = ev.VersionChange(version="policy-000001", state="live", previous="", reason="", changed_ms=99_999)
    assert join.add(ev.Envelope(event_id="change", event=change)) == []
    assert join.pending == join.duplicates == 0


def test_numbers_are_bounded_and_every_vote_is_accounted_for(new: New):
    join = new(2, max_pending=2)
    for name in "abc":
        join.add(completion(name))
    assert join.add(thumb("a", event_id="on a")) == []
    assert len(join.add(thumb("b", event_id="on b"))) == 1
    join.add(thumb("x", event_id="on x"))
    join.add(thumb("y", event_id="on y"))
    assert join.pending == 3
    assert [orphan.event_id for orphan in join.expire()] == ["on a"]
    assert join.pending == 2


def test_any_order_and_any_restart_give_the_same_and_lose_nothing(new: New):
    rng = random.Random(11)
    answers = [completion(f"c{n}", at_ms=1_000 + n) for n in range(60)]
    votes = [thumb(f"c{rng.randrange(70)}", index=rng.randrange(3), event_id=f"v{n}", at_ms=1_500) for n in range(200)]
    expected: set[str] | None = None
    for _ in range(5):
        events = [*answers, *votes]
        rng.shuffle(events)
        join, straight = new(), new()
        joined: list[str] = []
        for event in events:
            got = join.add(event)
            assert got == straight.add(event)
            joined += [each.event_id for each in got]
            if rng.random() < 0.1:
                join = restarted(join)
        assert join.to_json() == straight.to_json()
        assert len(set(joined)) == len(joined)
        dead = [event_id for event_id, _, _ in join.dead_lettered]
        assert len(joined) + len(dead) + join.pending == 200
        assert expected is None or set(joined) == expected
        expected = set(joined)
