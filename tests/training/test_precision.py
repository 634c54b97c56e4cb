"""The type that a trainer computes in goes with its checkpoint and its versions."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs

from rlhf_online.config import RewardSettings
from rlhf_online.models import precision
from rlhf_online.training import optimiser
from rlhf_online.training.checkpoint import Checkpoint
from services.reward.__main__ import ModelScorer, loader
from services.trainer import wiring
from tests.support.trainer_world import World, world


@pytest.fixture(autouse=True)
def units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: True)


def computing(made: World) -> tuple[str, list[str]]:
    """What a trainer that resumes now computes in, and what it says of it."""
    with capture_logs() as lines, made.trainer() as trainer:
        return trainer.parts.learners.dtype, [line["event"] for line in lines if "comput" in line["event"]]


def test_a_checkpoint_keeps_the_type_and_another_one_is_told(tmp_path: Path) -> None:
    with world(tmp_path, dtype="bfloat16") as made:
        made.chat(16)
        with made.trainer() as trainer:
            assert trainer.run_once()
        version = made.registry.live("reward")
        assert version is not None
        assert json.loads((made.registry.path(version) / "reward.json").read_text())["dtype"] == "bfloat16"
    with world(tmp_path) as made:
        assert computing(made) == ("bfloat16", ["computing"]), "auto, which is float32 for a model this small"
    with world(tmp_path, dtype="float32") as made:
        dtype, said = computing(made)
        assert dtype == "float32" and "the checkpoint was computed in another type" in said[1]


def test_layers_recompute_where_the_settings_say_so_and_learn_the_same(tmp_path: Path) -> None:
    learned = []
    for recompute in (False, True):
        with world(tmp_path / str(recompute), recompute=recompute) as made:
            made.chat(16)
            with made.trainer() as trainer:
                models = trainer.parts.learners.policy.policy.lm, trainer.parts.learners.reward.model.decoder
                assert [model.is_gradient_checkpointing for model in models] == [recompute] * 2
                assert trainer.run_once()
                learned.append(trainer.parts.learners.reward.model.state())
    assert all(torch.equal(tensor, learned[1][name]) for name, tensor in learned[0].items())


@pytest.mark.parametrize("place", ["device", "cpu"])
def test_the_moments_of_all_models_lie_where_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Also those of a policy that is loaded anew."""
    made, on_cpu = optimiser._zeros, Counter[bool]()  # noqa: SLF001

    def noted(piece: torch.Tensor, **kept: bool) -> dict[str, torch.Tensor]:
        on_cpu[kept["on_cpu"]] += 1
        return made(piece, **kept)

    monkeypatch.setattr(optimiser, "_zeros", noted)
    with world(tmp_path, optimiser_state=place, gate={"held_back": {"share": 0.1}}) as tiny, tiny.trainer() as trainer:
        first = tiny.registry.path("policy-000000")
        assert trainer.parts.held_back is not None
        trainer.parts.learners.follow(first, first)
    assert set(on_cpu) == {place == "cpu"}


def test_a_checkpoint_of_an_earlier_release_says_no_type_and_was_computed_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    monkeypatch.setattr(precision, "choose", lambda *asked: kept.append(asked[-1]) or torch.bfloat16)
    with world(tmp_path) as made, capture_logs() as lines:
        wiring._dtype(made.settings, Checkpoint(folder=tmp_path, number=0, state={}, sealed={}))  # noqa: SLF001
        wiring._dtype(made.settings, None)  # noqa: SLF001
    assert kept == ["float32", ""]
    assert [line["checkpoint"] for line in lines if "another type" in line["event"]] == ["float32"]


@pytest.mark.parametrize(("asked", "found"), [("auto", torch.bfloat16), ("float32", torch.float32)])
def test_scores_are_computed_in_what_the_trainer_computed_in_unless_told_otherwise(tmp_path: Path, asked, found):
    with world(tmp_path, dtype="bfloat16") as made:
        made.chat(16)
        with made.trainer() as trainer:
            trainer.run_once()
        version = made.registry.live("reward")
        assert version is not None
        settings = RewardSettings(state_dir=tmp_path, model=made.settings.model, device="cpu", dtype=asked)
        scorer = loader(settings, made.registry, made.tokenizer)(made.registry.manifest(version))
        assert isinstance(scorer, ModelScorer) and scorer.model.dtype == found
