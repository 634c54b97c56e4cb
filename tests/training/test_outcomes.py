"""What people are told of their votes: what a commit has settled, and never more, whatever is killed and sent again."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlhf_online.errors import FileDamaged
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import AnswerRef, Completion, Envelope, Feedback, FeedbackKind, Message, Thumb, Withdrawal
from rlhf_online.feedback.held_out import is_held_out
from rlhf_online.feedback.outcomes import Outcome, OutcomeBoard
from rlhf_online.training import outcomes
from rlhf_online.training.ledger import Ledger
from rlhf_online.training.outcomes import VoteOutcomes
from rlhf_online.versions.folder_store import FolderStore
from tests.support.crash import Crash
from tests.support.intakes import new_intake
from tests.support.logged import completion, thumb
from tests.support.trainer_world import MAX_TOKENS, PROMPTS, World, world


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def told(world: World, event_id: str, person: str = "p") -> list[tuple[str, str]]:
    """What is settled of the vote."""
    found = OutcomeBoard(world.registry.store).find(event_id, person)
    return [(outcome.word, outcome.detail) for outcome in found if outcome.settled]


def waits(world: World, event_id: str, person: str = "p") -> list[Outcome]:
    return [outcome for outcome in OutcomeBoard(world.registry.store).find(event_id, person) if not outcome.settled]


def send(world: World, event_id: str, kind: FeedbackKind, *, person: str = "p", replaces: str = "") -> None:
    feedback = Feedback(conversation_id="c", person=person, kind=kind, replaces=replaces, created_ms=1_000_100)
    world.append(Envelope(event_id=event_id, event=feedback))


def answered(world: World) -> Completion:
    """An answer in a conversation that is not held out."""
    while True:
        text = PROMPTS[0]
        prompt = world.tokenizer.prompt_ids([Message(role="user", content=text)])
        [rollout] = world.engine.sample([prompt], 1, MAX_TOKENS, 1.0)
        completion = world.completion(text, [rollout])
        if not is_held_out(completion.conversation_id, 0.2):
            world.append(Envelope(event_id=completion.completion_id, event=completion))
            return completion


def test_a_vote_is_joined_then_trained_or_held_out(tiny: World) -> None:
    votes = tiny.chat(6)
    with tiny.trainer() as trainer:
        assert not trainer.run_once()
        assert [waits(tiny, vote) for vote in votes] == [[Outcome("joined", settled=False)]] * 6
        assert told(tiny, votes[0]) == []
        votes += tiny.chat(20)
        assert trainer.run_once()
    for number, vote in enumerate(votes, 1):
        held_out = is_held_out(f"conversation-{number}", 0.2)
        assert told(tiny, vote) == [("held_out", "") if held_out else ("trained", "reward-000000")]
        assert told(tiny, vote, "somebody else") == waits(tiny, vote, "somebody else") == []


def test_what_is_set_aside_says_why(tiny: World) -> None:
    """An orphan, one on an answer that its completion lacks, one that would replace somebody else's, an edit, and a
    withdrawal; one without its answer waits."""
    tiny.orphan(created_ms=1_000_000)
    ref = AnswerRef(completion_id=answered(tiny).completion_id)
    send(tiny, "lacks", Thumb(answer=AnswerRef(completion_id=ref.completion_id, index=7), up=True))
    send(tiny, "mine", Thumb(answer=ref, up=True))
    send(tiny, "theft", Thumb(answer=ref, up=False), person="q", replaces="mine")
    send(tiny, "edit", Thumb(answer=ref, up=False), replaces="mine")
    other = AnswerRef(completion_id=answered(tiny).completion_id)
    send(tiny, "regretted", Thumb(answer=other, up=True))
    send(tiny, "back", Withdrawal(answer=other), replaces="regretted")
    send(tiny, "early", Thumb(answer=AnswerRef(completion_id="not yet"), up=True))
    with tiny.trainer() as trainer:
        tiny.chat(30)
        trainer.read_log()
        assert [outcome.word for outcome in waits(tiny, "early")] == ["waiting"]
        assert waits(tiny, "mine") == [Outcome("superseded", "edit", settled=False)]
        assert trainer.run_once()
    assert told(tiny, "lacks") == [("dead_lettered", f"completion {ref.completion_id} has no answer 7")]
    assert told(tiny, "theft", "q") == [("dead_lettered", "it would replace mine, which is somebody else's")]
    assert told(tiny, "mine") == [("superseded", "edit")] and told(tiny, "mine", "q") == []
    assert told(tiny, "regretted") == [("withdrawn", "back")]
    assert told(tiny, "back") == [("withdrawn", "")]
    assert told(tiny, "early") == []


def test_an_orphan_is_told(tmp_path: Path) -> None:
    with world(tmp_path, join_window_s=0.001) as tiny:
        vote = tiny.orphan(created_ms=1)
        with tiny.trainer() as trainer:
            tiny.chat(120)
            assert trainer.run_once()
        assert told(tiny, vote) == [("orphaned", "")]


def test_a_vote_that_nothing_was_learned_from_is_not_called_trained(tiny: World) -> None:
    """Only thumbs up do not tell what is better; one that changes a trained vote takes its place in the replay."""
    ref = AnswerRef(completion_id=answered(tiny).completion_id)
    send(tiny, "up", Thumb(answer=ref, up=True))
    tiny.chat(20)
    with tiny.trainer() as trainer:
        assert trainer.run_once()
        assert told(tiny, "up") == [("kept", "reward-000000")]
        send(tiny, "down", Thumb(answer=ref, up=False), replaces="up")
        tiny.chat(20)
        assert trainer.run_once()
    assert told(tiny, "up") == [("kept", "reward-000000"), ("superseded", "down")]
    assert told(tiny, "down") == [("kept", "reward-000001")]


@pytest.mark.parametrize("step", ["before the commit", "after the commit"])
def test_a_kill_tells_no_more_than_the_ledger(tiny: World, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Crash

    votes = tiny.chat(20)
    with monkeypatch.context() as patch, tiny.trainer() as trainer:
        if step == "before the commit":
            patch.setattr(trainer.parts.checkpoints, "save", killed)
        else:
            patch.setattr(VoteOutcomes, "publish", killed)
        with pytest.raises(Crash):
            trainer.run_once()
    assert [told(tiny, vote) for vote in votes] == [[]] * 20
    with tiny.trainer() as successor:
        if step == "after the commit":  # it is told at once
            assert all(told(tiny, vote) for vote in votes)
        successor.run_once()
        trained = [vote for vote in votes if told(tiny, vote) == [("trained", successor.progress.reward_version)]]
        assert len(trained) == len(tiny.ledger()["trained"])


def test_a_vote_sent_again_and_a_restart_tell_it_once(tiny: World) -> None:
    votes = tiny.chat(20)
    with tiny.trainer() as trainer:
        assert trainer.run_once()
    before = [told(tiny, vote) for vote in votes]
    for _ in range(2):
        with tiny.trainer() as trainer:
            assert not trainer.run_once()
    assert [told(tiny, vote) for vote in votes] == before
    assert all(len(facts) == 1 for facts in before)


class Board(OutcomeBoard):
    """`shown` is what votes/now was told, each time; with `fails` it cannot be written."""

    def __init__(self, folder: Path) -> None:
        super().__init__(FolderStore(folder / "versions"))
        self.shown: list[dict[str, str]] = []
        self.fails: Exception | None = None

    def show(self, facts: Mapping[str, str]) -> None:
        if self.fails:
            raise self.fails
        self.shown.append(dict(facts))
        super().show(facts)

    def publish(self, facts: Mapping[str, str]) -> None:
        if self.fails:
            raise self.fails
        super().publish(facts)


class Told:
    """Outcomes of an intake that reads no log: votes are put into its join."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(outcomes, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.ledger, self.board = Ledger(), Board(folder)
        self.log = LocalLog(folder / "log")
        self.source = LocalReader(folder / "log")
        self.intake = new_intake(self.source, self.ledger, folder / "answers")
        self.outcomes = VoteOutcomes(self.board, self.intake, self.ledger)

    def show(self) -> int:
        """How often votes/now was told until then."""
        self.outcomes.show()
        return len(self.board.shown)

    def words(self, *votes: str) -> list[list[str]]:
        return [[outcome.word for outcome in self.board.find(vote, "rater")] for vote in votes]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    made = Told(tmp_path, monkeypatch)
    yield made
    made.source.close()
    made.log.close()


def test_what_waits_is_shown_as_it_changes_and_at_most_once_a_second(bench: Told) -> None:
    assert bench.show() == 1, "at once, whatever a machine's clock says"
    bench.intake.join.add(thumb("a", event_id="one"))
    assert (bench.show(), bench.words("one")) == (1, [[]])
    bench.now = 0.75
    assert bench.show() == 1
    bench.now = 1.0
    assert (bench.show(), bench.words("one")) == (2, [["waiting"]])
    bench.now = 5.0
    assert bench.show() == 2, "nothing has changed"
    for change in (
        lambda: bench.intake.join.add(completion("a")),
        lambda: bench.ledger.tell("two", "rater", "trained", "reward-000001"),
        lambda: bench.intake.position.update(local=7),
    ):
        shown = bench.show()
        change()
        bench.now += 1.0
        assert bench.show() == shown + 1
    assert bench.words("two") == [["trained"]]


def test_of_what_waits_the_newest_is_shown(bench: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "MAX_WAITING", 2)
    for name in ("one", "two", "three"):
        bench.intake.join.add(thumb("a", event_id=name))
    bench.show()
    assert bench.words("one", "two", "three") == [[], ["waiting"], ["waiting"]]


@pytest.mark.parametrize("error", [OSError("no space"), FileDamaged("no file")])
def test_a_board_that_cannot_be_written_stops_no_training(bench: Told, error: Exception) -> None:
    bench.ledger.tell("one", "rater", "held_out")
    bench.board.fails = error
    assert bench.show() == 0
    if isinstance(error, OSError):  # the commit waits, and tells it again
        with pytest.raises(OSError, match="no space"):
            bench.outcomes.publish()
        bench.board.fails = None
        bench.outcomes.publish()
        assert bench.words("one") == [["held_out"]]
    else:
        bench.outcomes.publish()
        bench.board.fails = None
        bench.outcomes.publish()
        assert bench.words("one") == [[]], "given up"
    assert bench.ledger.news == {}
