"""Thumbs and blind pairs by version and person, counted from a real log."""

from collections.abc import Iterator
from pathlib import Path

import pytest

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
    Ranking,
    Sampling,
    Thumb,
    VersionSpan,
    Withdrawal,
)
from rlhf_online.prediction import Counts
from rlhf_online.wire import encode
from services.chat.console.opinions import Opinions

ANN, BEA = "a" * 32, "b" * 32
OLD, NEW, NEWEST = (f"policy-00000{n}" for n in (1, 2, 3))


class Log:
    """A log, and what follows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = LocalLog(folder)
        self.opinions = Opinions(folder)
        self.votes = 0

    def append(self, event_id: str, event: Completion | Feedback | Erasure) -> None:
        self.log.append(encode(Envelope(event_id=event_id, event=event))).result(10)

    def answer(self, name: str, *versions: str, comparison: str = "", person: str = ANN) -> AnswerRef:
        spans = tuple(VersionSpan(policy_version=version, first_token=i) for i, version in enumerate(versions))
        answer = Answer(index=0, text="so", token_ids=(1, 2), logprobs=(-1.0, -1.0), spans=spans, finish_reason="stop")
        self.append(
            name,
            Completion(
                completion_id=name, conversation_id=f"talk of {name}", person=person, messages=(),
                prompt_token_ids=(1,), answers=(answer,), sampling=Sampling(), started_ms=1, finished_ms=2,
                comparison_id=comparison,
            ),
        )  # fmt: skip
        return AnswerRef(completion_id=name)

    def vote(
        self,
        kind: FeedbackKind,
        person: str = ANN,
        *,
        replaces: str = "",
        could_know: bool = False,
        source: str = "api",
    ) -> str:
        self.votes += 1
        said = Feedback(
            conversation_id="", person=person, kind=kind, replaces=replaces, could_know=could_know, source=source
        )
        self.append(f"vote-{self.votes}", said)
        return f"vote-{self.votes}"

    def of(self, version: str, other: str = "") -> Counts:
        self.opinions.catch_up(10)
        return self.opinions.of(version, other)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.opinions.close()
    made.log.close()


def test_thumbs_count_by_person_for_who_alone_wrote_the_answer(log: Log) -> None:
    first, second, mixed = log.answer("a", OLD), log.answer("b", OLD), log.answer("c", OLD, NEW)
    for ref in (first, second, mixed):
        log.vote(Thumb(answer=ref, up=True))
    log.vote(Thumb(answer=first, up=False), BEA)
    log.vote(Thumb(answer=second, up=False), "c" * 32, source="ai")
    assert log.of(OLD) == Counts(people=2, opinions=3, means=1 + 0), "a model is no person"
    assert log.of(NEW) == Counts(), "an answer across a swap is nobody's alone"
    assert log.opinions.take_changed() == {OLD} and log.opinions.take_changed() == set()


def test_of_a_person_the_last_word_on_the_same_answers_counts(log: Log) -> None:
    ref = log.answer("a", OLD)
    before = log.vote(Thumb(answer=ref, up=True))
    log.vote(Thumb(answer=ref, up=False))
    assert log.of(OLD) == Counts(people=1, opinions=1, means=0)
    mine = log.vote(Thumb(answer=ref, up=True), replaces=before)
    assert log.of(OLD) == Counts(people=1, opinions=1, means=1)
    log.vote(Withdrawal(answer=ref), BEA, replaces=mine)
    assert log.of(OLD).people == 1, "somebody else's cannot be taken back"
    log.vote(Withdrawal(answer=ref), replaces=mine)
    assert log.of(OLD) == Counts()
    for _ in range(2):
        log.vote(Thumb(answer=ref, up=True), "")
    assert log.of(OLD) == Counts(people=2, opinions=2, means=2), "those without a name are not one person"


def test_blind_pairs_are_of_the_newer_version_over_the_older(log: Log) -> None:
    old, new = log.answer("a", OLD, comparison="x"), log.answer("b", NEW, comparison="x")
    log.vote(Pairwise(chosen=new, rejected=old))
    log.vote(Pairwise(chosen=old, rejected=new), BEA)
    log.vote(Pairwise(chosen=old, rejected=new, tie=True), "c" * 32)
    assert log.of(NEW, OLD) == Counts(people=3, opinions=3, means=1.5)
    assert log.of(OLD, NEW) == Counts() and log.of(NEW) == Counts()
    log.vote(Pairwise(chosen=old, rejected=new))
    assert log.of(NEW, OLD).means == 0.5, "ann has thought again"


def test_only_blind_answers_of_one_comparison_make_a_pair(log: Log) -> None:
    old, new = log.answer("a", OLD, comparison="x"), log.answer("b", NEW, comparison="x")
    apart, alike = log.answer("c", OLD, comparison="y"), log.answer("d", NEW, comparison="x")
    alone = log.answer("e", OLD), log.answer("f", NEW)
    log.vote(Pairwise(chosen=new, rejected=old), could_know=True)
    log.vote(Pairwise(chosen=new, rejected=apart))
    log.vote(Pairwise(chosen=new, rejected=alike))
    log.vote(Pairwise(chosen=alone[1], rejected=alone[0]))
    assert log.of(NEW, OLD) == Counts()


def test_a_ranking_is_all_its_pairs_of_one_person(log: Log) -> None:
    one, two, three = (log.answer(f"answer of {version}", version, comparison="x") for version in (OLD, NEW, NEWEST))
    log.vote(Ranking(tiers=((three,), (one, two))))
    assert [log.of(*pair).means for pair in ((NEWEST, OLD), (NEWEST, NEW), (NEW, OLD))] == [1, 1, 0.5]


def test_a_vote_before_its_answers_counts_once_they_come(log: Log) -> None:
    log.vote(Pairwise(chosen=AnswerRef(completion_id="b"), rejected=AnswerRef(completion_id="a")))
    log.vote(Thumb(answer=AnswerRef(completion_id="a"), up=True))
    log.answer("a", OLD, comparison="x")
    assert (log.of(NEW, OLD).people, log.of(OLD).people) == (0, 1)
    log.answer("b", NEW, comparison="x")
    assert log.of(NEW, OLD) == Counts(people=1, opinions=1, means=1)


def test_what_is_erased_counts_no_more_and_is_found_nowhere(log: Log) -> None:
    old, new = log.answer("a", OLD, comparison="x"), log.answer("b", NEW, comparison="x", person=BEA)
    log.vote(Pairwise(chosen=new, rejected=old), BEA)
    log.vote(Thumb(answer=new, up=True), BEA)
    assert (log.of(NEW, OLD).people, log.of(NEW).people) == (1, 1)
    log.append("e", Erasure(conversation_id="talk of a", person=ANN, erased_ms=9))
    assert (log.of(NEW, OLD).people, log.of(NEW).people) == (0, 1), "the thumb is on the other one's"
    assert log.opinions.take_changed() == {NEW}
    assert log.opinions.rows("SELECT said FROM vote WHERE thumb = 0") == []


def test_what_the_log_lets_go_of_stays_as_sums_without_names(log: Log) -> None:
    """A person goes into the sums with the last that they said of the version."""
    first, second = log.answer("a", OLD), log.answer("b", OLD)  # records 0 and 1
    log.vote(Thumb(answer=first, up=True))  # 2
    log.vote(Thumb(answer=first, up=False), BEA)  # 3
    log.vote(Thumb(answer=second, up=True))  # 4
    before = log.of(OLD)
    log.opinions.trim(4)
    assert log.opinions.of(OLD) == before == Counts(people=2, opinions=3, means=1)
    assert {person for (person,) in log.opinions.rows("SELECT person FROM opinion")} == {ANN}
    log.opinions.trim(5)
    assert log.opinions.of(OLD) == before
    tables = ("vote", "judged", "answer", "opinion")
    assert [log.opinions.rows(f"SELECT COUNT(*) FROM {table}") for table in tables] == [[(0,)]] * 4


def test_it_goes_on_where_it_was(log: Log) -> None:
    log.vote(Thumb(answer=log.answer("a", OLD), up=True))
    before = log.of(OLD)
    log.opinions.close()
    log.opinions = Opinions(log.folder)
    assert log.of(OLD) == before
