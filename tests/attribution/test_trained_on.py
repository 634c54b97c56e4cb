"""What each version has learned from: recorded with it, exactly, whatever is killed."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from rlhf_online.attribution import trained_on
from rlhf_online.attribution.lineage import UNRECORDED, Lineages
from rlhf_online.attribution.trained_on import AnswerUsed, TrainedOn, VoteUsed, key, parse
from rlhf_online.errors import FileDamaged
from rlhf_online.training.publication import Publisher
from rlhf_online.versions import open_registry
from rlhf_online.versions.store import VersionStore
from tests.support.crash import Crash
from tests.support.trainer_world import World, world

ANN = VoteUsed(event_id="v1", person="a" * 32, completions=("c1", "c2"))
AGAIN = VoteUsed(event_id="v0", person="", new=False)
SAID = TrainedOn(
    after="reward-000000",
    votes=(ANN, AGAIN),
    answers=(AnswerUsed(completion_id="c3", index=1, person="b" * 32),),
    asked=("c" * 32,),
)


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return open_registry(tmp_path / "versions").store


def recorded(world: World, version: str) -> TrainedOn:
    text = world.registry.store.read(key(version))
    assert text is not None
    return parse(world.registry.store, version, text)


def test_a_record_is_read_as_it_was_written_and_the_first_one_stays(store: VersionStore) -> None:
    trained_on.write(store, "policy-000001", SAID)
    trained_on.write(store, "policy-000001", TrainedOn())
    assert parse(store, "policy-000001", store.read(key("policy-000001")) or "") == SAID
    assert SAID.people == {"a" * 32, "", "b" * 32, "c" * 32}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"after": ""}', json.dumps(asdict(SAID) | {"votes": [{}]})])
def test_a_damaged_record_is_named(store: VersionStore, text: str) -> None:
    with pytest.raises(FileDamaged, match=r"trained/policy-000001\.json cannot be read .*bring it back from a backup"):
        parse(store, "policy-000001", text)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def test_a_version_says_which_votes_and_answers_it_learned_from(tiny: World) -> None:
    """As the ledger and the board of outcomes do, which are written apart."""
    first = tiny.chat(30)
    with tiny.trainer() as trainer:
        assert trainer.run_once()
        second = tiny.chat(30)
        assert trainer.run_once()
    one, two = recorded(tiny, "reward-000000"), recorded(tiny, "reward-000001")
    assert (one.after, two.after) == ("", "reward-000000")
    new = {vote.event_id for record in (one, two) for vote in record.votes if vote.new}
    assert {vote.event_id for vote in one.votes} <= set(first) and all(vote.new for vote in one.votes)
    assert {vote.event_id for vote in two.votes if vote.new} <= set(second)
    assert {vote.event_id for vote in two.votes if not vote.new} <= {vote.event_id for vote in one.votes}
    assert any(not vote.new for vote in two.votes), "some are replayed"
    assert 0 < len(new) <= len(tiny.ledger()["trained"])
    for vote in (*one.votes, *two.votes):  # the world's n-th vote is on the completion n + 1
        assert vote.completions == (f"completion-{int(vote.event_id.removeprefix('vote-')) + 1}",)
    policy = recorded(tiny, "policy-000002")
    assert policy.after == "policy-000001" and policy.votes == ()
    answers = {
        (item.completion_id, item.index)
        for name in ("policy-000001", "policy-000002")
        for item in recorded(tiny, name).answers
    }
    assert len(answers) == len(tiny.ledger()["rollout"]), "what was claimed was learned from, here"
    assert Lineages(tiny.registry).of("policy-000002").votes().keys() == new


def test_fresh_answers_name_the_people_whose_prompts_they_answer(tiny: World) -> None:
    """The 30 answers of people are fewer than the 32 of an update."""
    tiny.chat(15, answers=2)
    with tiny.trainer() as trainer:
        assert trainer.run_once()
    record = recorded(tiny, "policy-000001")
    assert len(record.answers) == 30 and record.asked == ("p",)


@pytest.mark.parametrize("step", ["after the commit", "before it is published"])
def test_a_kill_leaves_the_record_of_the_checkpoint(tiny: World, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The successor has learned nothing: it knows what the version learned from by the checkpoint alone."""

    def killed(*_: object, **__: object) -> None:
        raise Crash

    tiny.chat(30)
    name = "_record" if step == "after the commit" else "publish_reward"
    with monkeypatch.context() as patch, tiny.trainer() as trainer:
        patch.setattr(Publisher, name, killed)
        with pytest.raises(Crash):
            trainer.run_once()
        learned = trainer.progress.trained_on
    assert learned is not None and len(learned.votes) > 5
    assert tiny.registry.versions("reward") == []
    with tiny.trainer() as successor:
        assert successor.progress.trained_on == learned
        assert successor.run_once()
    assert recorded(tiny, "reward-000000") == learned
    assert recorded(tiny, "policy-000001").after == "policy-000000"


def test_a_policy_that_was_committed_and_not_published_keeps_its_record(
    tiny: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Crash

    tiny.chat(30)
    with monkeypatch.context() as patch, tiny.trainer() as trainer:
        patch.setattr(Publisher, "publish_policy", killed)
        with pytest.raises(Crash):
            trainer.run_once()
        assert trainer.progress.judged is not None
        learned = trainer.progress.judged.trained_on
    assert tiny.registry.versions("policy") == ["policy-000000"]
    with tiny.trainer():
        assert recorded(tiny, "policy-000001") == learned
    assert learned is not None and len(learned.answers) > 5


def test_a_version_without_a_record_is_unknown_and_the_reward_model_one_line(tmp_path: Path) -> None:
    """Those of earlier releases; one whose record is damaged; and one whose parent is not there."""
    from tests.support.version_history import fill

    registry = open_registry(tmp_path / "versions")
    fill(registry, 5)
    lineages = Lineages(registry)
    trained_on.write(registry.store, "reward-000002", TrainedOn(after="reward-000001", votes=(ANN,)))
    registry.store.replace(key("reward-000001"), "{", expected=None)
    line = lineages.of("policy-000004")
    assert list(line.records) == ["reward-000002", "policy-000000"], "the base model has learned from nobody"
    assert line.unknown == {
        "reward-000000": UNRECORDED,
        "reward-000001": line.unknown["reward-000001"],
        "policy-000001": UNRECORDED,
        "policy-000002": UNRECORDED,
        "policy-000004": UNRECORDED,
    }
    assert "trained/reward-000001.json cannot be read" in line.unknown["reward-000001"]
    assert line.votes() == {"v1": (ANN, "reward-000002")}
