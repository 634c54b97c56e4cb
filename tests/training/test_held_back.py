"""The held-back reward model in the loop: what it learns from, when it judges, and what a checkpoint keeps of it."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlhf_online.errors import ConfigError, VersionCorrupt
from rlhf_online.events import AnswerRef, Envelope, Erasure, Feedback, Withdrawal
from rlhf_online.feedback.held_out import use_of
from rlhf_online.gate.held_back import HeldBackCheck
from rlhf_online.models.limits import ModelLimits
from rlhf_online.models.tokens import Pair
from rlhf_online.rewards.sources import Scored
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.training.checkpoint import CheckpointPart
from rlhf_online.training.held_back import HeldBackModel
from rlhf_online.training.loop import Trainer
from rlhf_online.training.reward_update import RewardUpdater
from tests.support.trainer_world import World, settings_of, world

SHARES = {"held_out": 0.2, "held_back": 0.5}


def gate(**settings: Any) -> Any:
    check = HeldBackCheck.model_validate({"share": SHARES["held_back"], **settings})
    return settings_of(StateDir(Path()), Path()).gate.model_copy(update={"held_back": check})


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, gate=gate()) as made:
        yield made


def held_back(trainer: Trainer) -> HeldBackModel:
    assert trainer.parts.held_back is not None
    return trainer.parts.held_back


def replayed(updater: RewardUpdater) -> set[str]:
    """The conversations whose votes it learns from again and again."""
    return {vote["conversation_id"] for vote in updater.state()[1]["replay"]}


def uses(tiny: World, first: int = 1) -> dict[str, set[str]]:
    """The conversations by what their votes are for, by the hash of their names alone."""
    found: dict[str, set[str]] = {"learned": set(), "held_back": set(), "held_out": set()}
    for number in range(first, tiny.conversations + 1):
        found[use_of(f"conversation-{number}", **SHARES)].add(f"conversation-{number}")
    return found


def test_each_reward_model_learns_from_its_own_conversations_and_both_are_measured_on_the_same(tiny: World) -> None:
    tiny.chat(30)
    with tiny.trainer() as trainer:
        assert trainer.run_once()
        reward, apart = trainer.parts.learners.reward, held_back(trainer).updater
        by_use = uses(tiny)
        assert all(by_use.values())
        assert (replayed(reward), replayed(apart)) == (by_use["learned"], by_use["held_back"])
        for updater in (reward, apart):
            assert {vote["conversation_id"] for vote in updater.state()[1]["held_out"]} == by_use["held_out"]
        assert not torch.equal(reward.model.heads.weight, apart.model.heads.weight)
        assert trainer.progress.held_back["accuracy_n"] == trainer.progress.figures["accuracy_n"] > 0
        figures = tiny.registry.status("policy-000001").gate
        assert figures["held_back_knows"] in (0.0, 1.0)
        [item] = tiny.state.read_status("trainer")["history"]
        assert 0 < item["gate_share"] < 1 and item["seconds"]["held_back"] > 0


def test_its_scores_reach_no_update(tmp_path: Path) -> None:
    """With another held-back model, and the same log, the policy and its reward model are the same to the last bit."""
    with world(tmp_path / "one", gate=gate()) as tiny:
        tiny.chat(30)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    found = []
    for name, settings in (("one", {}), ("two", {"trunk": str(tmp_path / "other")})):
        write_tiny_model(tmp_path / "other", weights_seed=9)
        with world(tmp_path / name, gate=gate(**settings)) as tiny, tiny.trainer() as trainer:
            assert trainer.run_once()
            found.append((trainer.parts.learners.reward.state()[0], trainer.parts.learners.policy.state()[0]))
            found.append(held_back(trainer).updater.state()[0])
    assert all(torch.equal(found[0][0][name], found[2][0][name]) for name in found[0][0])
    assert all(torch.equal(found[0][1][name], found[2][1][name]) for name in found[0][1])
    assert not all(torch.equal(found[1][name], found[3][name]) for name in found[1])


def test_a_candidate_that_it_does_not_like_is_refused(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def against(model: HeldBackModel, pairs: Sequence[Pair], *terms: object) -> list[Scored]:
        """The gate asks for the candidate's answers first."""
        return [Scored(float(row >= len(pairs) // 2), 0.0) for row in range(len(pairs))]

    monkeypatch.setattr(HeldBackModel, "score", against)
    tiny.chat(20)
    with tiny.trainer() as trainer:
        trainer.read_log()
        trainer.learn_votes()
        trainer.progress.held_back |= {"accuracy_low": 0.6, "trained_objectives": 1}
        trainer.improve_policy()
    status = tiny.registry.status("policy-000001")
    assert status.state == "rejected" and tiny.registry.live("policy") == "policy-000000"
    assert "win rate over the live version by the held-back reward model 0.00" in status.reason
    assert (status.gate["held_back_win_rate"], status.gate["held_back_knows"]) == (0.0, 1.0)


def test_erased_and_withdrawn_votes_are_repeated_no_more(tiny: World) -> None:
    tiny.chat(20)
    with tiny.trainer() as trainer:
        assert trainer.run_once()
        erased, withdrawn = sorted(replayed(held_back(trainer).updater))[:2]
        tiny.append(Envelope(event_id="e", event=Erasure(conversation_id=erased, person="p", erased_ms=2_000_000)))
        number = int(withdrawn.partition("-")[2])
        withdrawal = Feedback(
            conversation_id=withdrawn,
            person="p",
            kind=Withdrawal(answer=AnswerRef(completion_id=f"completion-{number}")),
            replaces=tiny.accepted[number - 1],
            created_ms=2_000_000,
        )
        tiny.append(Envelope(event_id="w", event=withdrawal))
        tiny.chat(20)
        assert trainer.run_once()
        left = replayed(held_back(trainer).updater)
        assert left == uses(tiny)["held_back"] - {erased, withdrawn} and left


def test_a_restart_goes_on_with_it_and_a_checkpoint_without_it_begins_it_anew(tiny: World) -> None:
    tiny.chat(20)
    with tiny.trainer() as trainer:
        assert trainer.run_once()
        learned = held_back(trainer).updater.state()
    with tiny.trainer() as trainer:
        tensors, values = held_back(trainer).updater.state()
        assert json.dumps(values) == json.dumps(learned[1])
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in learned[0].items())
    tiny.settings = tiny.settings.model_copy(update={"gate": gate(share=0.0)})
    tiny.chat(10)
    with tiny.trainer() as trainer:
        assert trainer.parts.held_back is None
        assert trainer.run_once()
        assert "held_back_knows" not in tiny.registry.status("policy-000002").gate
        assert trainer.progress.held_back == {}
    before = tiny.conversations
    tiny.settings = tiny.settings.model_copy(update={"gate": gate()})
    tiny.chat(20)
    with tiny.trainer() as trainer:
        assert held_back(trainer).updater.updates == 0
        assert trainer.run_once()
        assert replayed(held_back(trainer).updater) == uses(tiny, before + 1)["held_back"]


def test_another_models_state_is_refused_and_what_to_do_is_said(tiny: World) -> None:
    part = CheckpointPart({}, {"objectives": ["harmless"]})
    with tiny.trainer() as trainer, pytest.raises(VersionCorrupt, match=r"held-back .* gate\.held_back\.share = 0"):
        held_back(trainer).restore(part)


def test_the_policy_waits_until_it_can_be_judged(tmp_path: Path) -> None:
    """If that is asked for; the world's own reward model needs no proof."""
    with world(tmp_path, gate=gate(required=True)) as tiny, tiny.trainer() as trainer:
        tiny.chat(20)
        assert trainer.run_once()
        [item] = tiny.state.read_status("trainer")["history"]
        assert item["outcome"] == "cold"
        assert item["why"].startswith("the held-back reward model orders held-out votes rightly more than 0.")
        assert item["why"].endswith("gate.held_back.required asks for more than 0.5: more votes are needed")
        trainer.progress.held_back |= {"accuracy_low": 0.51, "trained_objectives": 1}
        trainer.improve_policy()
        assert tiny.state.read_status("trainer")["history"][-1]["outcome"] == "promoted"
        assert tiny.registry.status("policy-000001").gate["held_back_knows"] == 1


def test_its_trunk_may_begin_as_another_model_of_the_same_tokenizer(tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_tiny_model(other, weights_seed=9)
    with world(tmp_path, gate=gate(trunk=str(other))) as tiny:
        with tiny.trainer() as trainer:
            begun = held_back(trainer).updater.model.decoder.state_dict()["embed_tokens.weight"]
            assert torch.equal(begun, load_file(other / "model.safetensors")["model.embed_tokens.weight"])
            own = trainer.parts.learners.reward.model.decoder.state_dict()["embed_tokens.weight"]
            assert not torch.equal(begun, own)
        text = (other / "tokenizer.json").read_text()
        (other / "tokenizer.json").write_text(text.replace('"copper"', '"bronze"'))
        with pytest.raises(ConfigError, match=r"gate\.held_back\.trunk: .* another tokenizer"), tiny.trainer():
            pass


def test_votes_must_fit_both_reward_models(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with tiny.trainer() as trainer:
        model = held_back(trainer).updater.model
        limits = trainer.parts.learners.vote_limits
        assert held_back(trainer).narrow(limits) == limits
        monkeypatch.setattr(type(model), "limits", ModelLimits(vocabulary=50, context=500))
        assert held_back(trainer).narrow(limits).models == ModelLimits(vocabulary=50, context=128)


def test_a_score_is_the_mean_of_the_heads_by_the_objectives_weights(tmp_path: Path) -> None:
    reward = settings_of(StateDir(Path()), Path()).reward.model_copy(update={"objectives": ("helpful", "harmless")})
    with world(tmp_path, gate=gate(), reward=reward) as tiny, tiny.trainer() as trainer:
        model, pairs = held_back(trainer).updater.model, [((1, 20, 3), (30, 31, 2)), ((1, 21, 3), (32, 2))]
        heads_NOK = model.scores(pairs)
        found = held_back(trainer).score(pairs, {"helpful": 2.0, "harmless": 0.0})
        assert [item.score for item in found] == pytest.approx(heads_NOK[:, 0].mean(1).tolist(), abs=1e-5)
        spreads_N = heads_NOK[:, 0].std(1, unbiased=False)
        assert [item.spread for item in found] == pytest.approx(spreads_N.tolist(), abs=1e-5)
