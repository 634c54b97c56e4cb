"""Votes, thumbs and swaps counted from a real log, and what the trainer tells of votes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.events import (
    Answer,
    AnswerRef,
    Completion,
    Envelope,
    Erasure,
    Feedback,
    FeedbackKind,
    Pairwise,
    Sampling,
    Thumb,
    VersionChange,
    VersionSpan,
    Withdrawal,
    now_ms,
)
from rlhf_online.feedback.outcomes import OutcomeBoard, Word, fact, vote_key
from rlhf_online.metrics import ChatMetrics
from rlhf_online.wire import encode
from services.chat.console.fates import Fates
from services.chat.console.panel import click_to_live
from services.chat.console.tally import Tally
from tests.support.memory_store import MemoryStore

ANN, BEA = "a" * 32, "b" * 32
MINUTE = now_ms() // 60_000


class Log:
    """A log, what the trainer tells, and the tally of both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = LocalLog(folder)
        self.board = OutcomeBoard(MemoryStore(folder))
        self.tally = Tally(folder)
        self.votes = 0
        self.metrics = ChatMetrics(registry := CollectorRegistry())
        self.registry = registry

    def append(self, event_id: str, event: Completion | Feedback | Erasure | VersionChange) -> None:
        self.log.append(encode(Envelope(event_id=event_id, event=event))).result(10)

    @property
    def fates(self) -> Fates:
        return Fates(self.tally, self.board, self.metrics.votes.to_live)

    def settled(self, first_reward_ms: int) -> None:
        self.seen()
        self.fates.settle(first_reward_ms)

    def answer(self, name: str, *versions: str, person: str = ANN) -> None:
        spans = tuple(VersionSpan(policy_version=version, first_token=i) for i, version in enumerate(versions))
        answer = Answer(index=0, text="so", token_ids=(1, 2), logprobs=(-1.0, -1.0), spans=spans, finish_reason="stop")
        self.append(
            name,
            Completion(
                completion_id=name, conversation_id=f"talk of {name}", person=person, messages=(),
                prompt_token_ids=(1,), answers=(answer,), sampling=Sampling(), started_ms=1, finished_ms=2,
            ),
        )  # fmt: skip

    def vote(
        self,
        kind: FeedbackKind,
        person: str = ANN,
        replaces: str = "",
        event_id: str = "",
        ms: int = 0,
        source: str = "api",
    ) -> str:
        self.votes += 1
        name = event_id or f"vote-{self.votes}"
        created_ms = ms or MINUTE * 60_000
        said = Feedback(
            conversation_id="", person=person, kind=kind, created_ms=created_ms, replaces=replaces, source=source
        )
        self.append(name, said)
        return name

    def thumb(self, up: bool, on: str, person: str = ANN, replaces: str = "") -> str:
        return self.vote(Thumb(answer=AnswerRef(completion_id=on), up=up), person, replaces)

    def tell(self, word: Word, detail: str, *votes: str, person: str = ANN) -> None:
        self.board.publish({vote_key(vote, person): fact(word, detail) for vote in votes})

    def seen(self) -> Tally:
        self.tally.catch_up(10)
        return self.tally


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.tally.close()
    made.log.close()


def test_thumbs_are_those_of_the_version_that_wrote_the_answer(log: Log) -> None:
    log.answer("one", "policy-000001")
    log.answer("two", "policy-000002")
    log.answer("across a swap", "policy-000001", "policy-000002")
    log.thumb(True, "one")
    log.thumb(False, "one", BEA)
    log.thumb(True, "two")
    log.thumb(True, "across a swap")
    log.vote(Thumb(answer=AnswerRef(completion_id="two"), up=False), BEA, source="ai")
    log.thumb(True, "before its answer")
    assert (log.seen().thumbs.of("policy-000001"), log.seen().thumbs.of("policy-000002")) == ((1, 1), (1, 0))
    log.answer("before its answer", "policy-000002")
    assert log.seen().thumbs.of("policy-000002") == (2, 0)
    assert log.tally.thumbs.take_changed() == {"policy-000001", "policy-000002"}
    assert log.tally.thumbs.take_changed() == set(), "told once"


def test_of_a_person_the_last_thumb_on_an_answer_counts(log: Log) -> None:
    log.answer("one", "policy-000001")
    first = log.thumb(True, "one")
    log.thumb(False, "one")
    assert log.seen().thumbs.of("policy-000001") == (0, 1), "changed by another thumb"
    log.thumb(True, "one", BEA, replaces=first)
    assert log.seen().thumbs.of("policy-000001") == (1, 1), "nobody takes back what is another's"
    third = log.thumb(True, "one")
    log.vote(Withdrawal(answer=AnswerRef(completion_id="one")), replaces=third)
    assert log.seen().thumbs.of("policy-000001") == (1, 0), "taken back"
    for _ in range(2):
        log.thumb(True, "one", person="")
    assert log.seen().thumbs.of("policy-000001") == (3, 0), "nobody's count each: they may be many people's"


def test_what_is_erased_counts_no_more(log: Log) -> None:
    log.answer("one", "policy-000001")
    log.answer("two", "policy-000001")
    for person in (ANN, BEA):
        log.thumb(True, "one", person)
    log.thumb(True, "two")
    log.append("erasure", Erasure(conversation_id="talk of one", person=ANN, erased_ms=3))
    assert log.seen().thumbs.of("policy-000001") == (1, 0), "whoever gave them, as for the trainer"


def test_votes_are_counted_by_minute_once_each(log: Log) -> None:
    pair = Pairwise(chosen=AnswerRef(completion_id="one"), rejected=AnswerRef(completion_id="two"))
    log.vote(pair, event_id="sent twice")
    log.vote(pair, event_id="sent twice")
    log.vote(pair, ms=(MINUTE - 2) * 60_000)
    log.vote(pair, ms=(MINUTE - 60) * 60_000)
    log.vote(Withdrawal(answer=AnswerRef(completion_id="one")), replaces="sent twice")
    minutes = log.seen().minutes(MINUTE)
    assert (len(minutes), minutes[-3:], sum(minutes)) == (60, [1, 0, 1], 2), "an hour, its last minute last"
    assert log.tally.total() == 3
    assert log.tally.waiting() == (3, (MINUTE - 60) * 60_000)


def test_a_vote_waits_until_something_has_become_of_it(log: Log) -> None:
    votes = [log.thumb(True, "one", person) for person in (ANN, ANN, BEA, ANN)]
    log.tell("trained", "reward-000001", votes[0])
    log.tell("held_out", "", votes[1])
    log.tell("dead_lettered", "stranger", votes[2])  # not known by this name: another person's
    log.settled(first_reward_ms=0)
    assert log.tally.waiting()[0] == 2
    log.tell("orphaned", "", votes[2], person=BEA)
    log.tell("trained", "reward-000002", votes[0], votes[3])
    log.fates.settle(first_reward_ms=0)
    assert log.tally.waiting() == (0, 0)
    assert log.fates.taught() == ["reward-000001", "reward-000002"], "each vote by the version that learned it first"


def test_the_time_from_a_click_to_a_live_version_is_that_of_its_votes(log: Log) -> None:
    votes = [log.thumb(True, "one") for _ in range(2)]
    other = log.vote(Thumb(answer=AnswerRef(completion_id="one"), up=True), ms=MINUTE * 60_000 - 30_000)
    log.tell("trained", "reward-000001", *votes)
    log.tell("trained", "reward-000002", other)
    log.settled(first_reward_ms=0)
    changed_ms = MINUTE * 60_000 + 93_000
    log.append(
        "swap", VersionChange(version="policy-000001", state="live", previous="", reason="", changed_ms=changed_ms)
    )
    log.seen()
    log.fates.went_live("reward-000001", "policy-000001", MINUTE * 60_000 + 90_000)
    swapped = {"stage": "swapped"}
    assert log.registry.get_sample_value("rlhf_click_to_live_seconds_sum", swapped) == 186.0, "until it served here"
    assert (log.fates.clicks(), log.fates.taught()) == ([90.0, 90.0], ["reward-000002"])
    log.fates.went_live("reward-000002", "policy-000002", MINUTE * 60_000 + 90_000)
    log.fates.went_live("reward-000002", "policy-000003", MINUTE * 60_000 + 990_000)
    assert log.registry.get_sample_value("rlhf_click_to_live_seconds_count", swapped) == 3
    assert log.fates.clicks() == [90.0, 90.0, 120.0], "once"


def test_votes_of_a_time_of_which_the_trainer_told_nothing_wait_no_more(log: Log) -> None:
    """As in the state of an earlier release: there were reward versions before anything was told."""
    log.thumb(True, "one")
    log.tell("held_out", "", "some later vote")
    log.settled(first_reward_ms=1)
    assert log.tally.waiting()[0] == 0


def test_a_database_that_is_lost_is_made_anew_from_the_log(log: Log) -> None:
    log.answer("one", "policy-000001")
    vote = log.thumb(True, "one")
    log.append("swap", VersionChange(version="policy-000001", state="live", previous="", reason="", changed_ms=5))
    log.tell("trained", "reward-000001", vote)
    log.settled(first_reward_ms=0)
    log.tally.close()
    (log.folder / "console.sqlite").unlink()
    log.tally = Tally(log.folder)
    log.settled(first_reward_ms=0)
    assert (log.tally.thumbs.of("policy-000001"), log.tally.waiting()[0]) == ((1, 0), 0)
    assert log.tally.changes(10, 5) == [(5, "policy-000001", "live", "", "")]


def test_what_retention_removes_was_counted(log: Log) -> None:
    log.answer("one", "policy-000001")
    vote = log.thumb(True, "one")
    log.tell("held_out", "", vote)
    waiting = log.thumb(True, "two")
    log.settled(first_reward_ms=0)
    log.tally.trim(first=2)
    assert (log.tally.thumbs.of("policy-000001"), log.tally.total(), log.tally.waiting()[0]) == ((1, 0), 2, 1)
    log.tally.trim(first=3)
    assert (waiting, log.tally.waiting()[0]) == ("vote-2", 0)


def test_percentiles_and_bins_by_hand() -> None:
    assert click_to_live([])["p50_s"] is None and sum(click_to_live([])["counts"]) == 0
    found = click_to_live([5.0, 10.0, 11.0, 100_000.0])
    assert (found["p50_s"], found["p90_s"], found["p99_s"]) == (10.0, 100_000.0, 100_000.0)
    assert found["counts"][:2] == [2, 1] and found["counts"][-1] == 1 and sum(found["counts"]) == 4 == found["votes"]
