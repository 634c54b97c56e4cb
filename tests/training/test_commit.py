"""A commit: what it holds of what has changed, and in which order it comes about."""

from types import SimpleNamespace as Space
from typing import Any, cast

import pytest

from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog.gap import Place
from rlhf_online.training.checkpoint import CheckpointPart
from rlhf_online.training.commit import commit, commit_intake, mark_consumed
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.progress import Progress


class Bench:
    """`order` is what was called; `saved` what the checkpoint was given."""

    def __init__(self, *, first: bool = False) -> None:
        self.order: list[str] = []
        self.saved: dict[str, Any] = {}
        self.consumed: list[dict[str, int]] = []
        self.log_away = False
        self.progress = Progress(log_identity="a log", policy_version="policy-000001", position={"local": 17})
        parts = Space(
            checkpoints=Space(
                last=None if first else object(), ledger_folder="ledger folder", save=self._save,
                position=lambda: {"local": 5},
            ),
            intake=Space(
                to_json=lambda: {"the": "intake"},
                policy_inputs=Space(buffer=Space(to_json=lambda: "the buffer")),
                join=Space(answers=Space(seal=lambda: ["an answer"])),
                write_dead_letters=lambda: self.order.append("dead letters"),
                mark_consumed=self._consumed,
                position={"local": 40},
            ),
            learners=Space(
                reward_part=lambda: "the reward model", policy_part=lambda: "the policy", dtype="float32"
            ),
            held_back=None,
            experience=Space(curriculum=Space(to_json=lambda: "the curriculum")),
            outcomes=Space(publish=lambda: self.order.append("told")),
            ledger=Space(seal=lambda folder: [f"sealed in the {folder}"]),
            retrier=Space(call=lambda doing, action: action()),
        )  # fmt: skip
        self.parts = cast(TrainerParts, parts)

    def _save(self, state: Any, contents: Any, sealed: Any, place: Place) -> None:
        self.order.append("checkpoint")
        self.saved = {"state": state, "contents": contents, "sealed": sealed, "place": place}

    def _consumed(self, position: dict[str, int]) -> None:
        self.order.append("consumed")
        if self.log_away:
            raise LogUnavailable("away")
        self.consumed.append(position)


def test_dead_letters_come_before_the_checkpoint_and_the_log_hears_after_it_what_nobody_needs() -> None:
    bench = Bench()
    commit(bench.parts, bench.progress, intake=True)
    assert bench.order == ["dead letters", "checkpoint", "told", "consumed"]
    assert bench.consumed == [{"local": 5}], "of all checkpoints that are kept, not of this one"
    assert bench.saved["state"] == {
        "progress": bench.progress.to_json(), "buffer": "the buffer", "curriculum": "the curriculum", "dtype": "float32"
    }  # fmt: skip
    assert bench.saved["sealed"] == {"ledger": ["sealed in the ledger folder"], "answers": ["an answer"]}
    assert bench.saved["place"] == Place("a log", {"local": 17})


@pytest.mark.parametrize("changed", [(), ("intake",), ("reward",), ("policy",), ("intake", "reward")])
@pytest.mark.parametrize("first", [True, False])
def test_what_has_changed_is_written_and_all_of_it_the_first_time(changed: tuple[str, ...], first: bool) -> None:
    bench = Bench(first=first)
    intake, reward, policy = (name in changed for name in ("intake", "reward", "policy"))
    commit(bench.parts, bench.progress, intake=intake, reward=reward, policy=policy)
    whole = {"intake": CheckpointPart({}, {"the": "intake"}), "reward": "the reward model", "policy": "the policy"}
    assert bench.saved["contents"] == {name: part if first or name in changed else None for name, part in whole.items()}


def test_what_was_read_without_a_cycle_moves_the_position() -> None:
    bench = Bench()
    commit_intake(bench.parts, bench.progress)
    assert bench.saved["place"] == Place("a log", {"local": 40}) and bench.progress.position == {"local": 40}
    assert bench.saved["contents"]["intake"] is not None and bench.saved["contents"]["reward"] is None


def test_a_log_that_cannot_be_told_only_keeps_more() -> None:
    bench = Bench()
    bench.log_away = True
    mark_consumed(bench.parts)
    commit(bench.parts, bench.progress)
    assert bench.order == ["consumed", "dead letters", "checkpoint", "consumed"] and bench.consumed == []
