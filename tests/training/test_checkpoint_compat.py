"""A state folder that an earlier release wrote opens, and goes on where it was."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_online.errors import CheckpointError
from rlhf_online.training.checkpoint_compat import FORMAT, upgrade_part, upgrade_state
from rlhf_online.training.commit import commit_intake
from rlhf_online.training.settings import RewardTraining
from tests.faults import auditor
from tests.support.trainer_world import World, world

DATA = Path(__file__).resolve().parents[1] / "data"
READ = {"trained": 60, "held_out": 24, "orphaned": 0, "dead_lettered": 3, "rollout": 128, "withdrawn": 7, "erased": 0}
"""What the ledger of the stored checkpoint counts, of either commit: both took the same votes."""


@pytest.fixture(params=["46f9894", "094f1a2"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """The folder that an earlier commit wrote (tests/data/README.md), opened with today's code."""
    with tarfile.open(DATA / f"state-{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    reward = RewardTraining(
        objectives=("helpful", "harmless"),
        heads=2,
        batch=16,
        epochs=1,
        cold_epochs=2,
        held_out=0.2,
        policy_accuracy=0.0,
    )
    with world(tmp_path, reward=reward) as opened:
        opened.accepted = (tmp_path / "accepted.txt").read_text().split()
        opened.conversations = 134
        yield opened


def test_a_state_folder_of_an_earlier_commit_goes_on_where_it_was(stored: World) -> None:
    with stored.trainer() as trainer:
        intake, reward = trainer.parts.intake, trainer.parts.learners.reward
        assert trainer.parts.ledger.counts() == READ
        assert (intake.votes.trainable, intake.pending, intake.votes.revoked) == (22, 27, [("vote-1", "person-1")])
        assert (reward.updates, trainer.parts.learners.policy.updates) == (4, 3)
        assert (trainer.progress.policy_version, trainer.progress.cycle) == ("policy-000004", 4)
        assert trainer.run_once()
        assert not trainer.run_once(), "all that was logged is read"
        counts = trainer.parts.ledger.counts()
        assert counts["trained"] > READ["trained"] + 22 and counts["rollout"] > READ["rollout"]
        assert sum(counts.values()) - counts["rollout"] == len(stored.accepted) + 1, "and one record is no event"
        assert intake.pending == 0
        assert stored.registry.live("policy") == "policy-000005"
    assert auditor.audit(stored.state.root, stored.accepted).problems == []
    ledger = [digest for digests in stored.ledger().values() for digest in digests]
    assert len(set(ledger)) == len(ledger)


def test_what_it_wrote_is_carried_on_beside_files_of_today(stored: World) -> None:
    """A commit of what was only read links the old files of the models into the new checkpoint."""
    with stored.trainer() as trainer:
        trainer.read_log()
        commit_intake(trainer.parts, trainer.progress)
        counts, pending = trainer.parts.ledger.counts(), trainer.parts.intake.pending
    with stored.trainer() as trainer:
        assert (trainer.parts.ledger.counts(), trainer.parts.intake.pending) == (counts, pending)
        assert trainer.run_once()
    assert auditor.audit(stored.state.root, stored.accepted).problems == []


def test_a_file_of_a_later_release_is_refused() -> None:
    with pytest.raises(CheckpointError, match="use a newer release"):
        upgrade_state({"format": FORMAT + 1})
    with pytest.raises(CheckpointError, match="use a newer release"):
        upgrade_part("policy", {"format": FORMAT + 1}, {})


def test_what_is_written_today_is_of_format_2_and_is_read_as_it_is() -> None:
    assert FORMAT == 2
    assert upgrade_state({"format": 2, "n": 1}) == {"n": 1}
    assert upgrade_part("policy", {"format": 2, "n": 1}, {}) == ({}, {"n": 1})


def test_votes_that_waited_get_the_tokens_of_what_was_text() -> None:
    votes = [
        {"vote": {"event_id": "a", "candidate": {"token_ids": [5, 2], "text": "no", "slot": 1}}},
        {"vote": {"event_id": "b", "candidates": [{"token_ids": [], "text": "ab", "slot": 0}]}},
    ]
    _, values = upgrade_part("intake", {"votes": votes, "taken": 1}, {}, lambda text: tuple(text.encode()))
    assert values == {
        "delivered": 1,
        "votes": [
            {"event_id": "a", "candidate": {"token_ids": [5, 2], "position": 1}},
            {"event_id": "b", "candidates": [{"token_ids": (97, 98), "position": 0}]},
        ],
    }


def test_votes_that_were_lists_keep_their_order_and_their_positions() -> None:
    ranking = ["a", "c", "p", [1, 3], [[5, 2], [6, 2], [7, 2]], [9, 2, 9], [2, 0, 1], 3, None, True, "", "helpful"]
    thumb = ["b", "c", "p", [1, 3], [[5, 2]], [0], [-1], 0, False, False, "stop", "harmless"]
    learned = {"slots": [0.5], "intercepts": [], "reliability": {}}
    _, values = upgrade_part("reward", {"replay": [ranking], "held_out": [thumb], "learned": learned}, {})
    [first], [second] = values["replay"], values["held_out"]
    assert first["tiers"] == [[1], [0, 2]] and (first["strength"], first["unsure"]) == (3, True)
    assert [item["position"] for item in first["candidates"]] == [2, 0, 1]
    assert second["candidate"] == {"token_ids": [5, 2], "position": -1}
    assert (second["up"], second["signal"], second["objective"]) == (False, "stop", "harmless")
    assert values["learned"] == {"position_bias": [0.5], "rater_bias": [], "signal_reliability": {}}
