"""The reward model: scores, normalisation, and folders that come back."""

import json
from pathlib import Path

import pytest
import torch

from rlhf_online.errors import VersionCorrupt
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.simulation.tiny_model import write_tiny_model

PAIRS: list[Pair] = [((1, 10 + i, 20, 3), (*[30 + i] * (1 + i % 4), 2)) for i in range(20)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


def _shake(model: RewardModel) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters().values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def test_utility_is_read_at_the_last_real_token(base: Path):
    model = RewardModel.load(base, tuning="full", heads=3)
    found = model.utilities(PAIRS)
    assert found.shape == (20, 3)
    for index in (0, 3, 19):
        prompt, answer = PAIRS[index]
        with torch.no_grad():
            hidden = model.decoder(torch.tensor([[*prompt, *answer]])).last_hidden_state[0, -1]
            assert torch.allclose(found[index], model.heads(hidden), atol=1e-5)


def test_heads_begin_small_and_differ(base: Path):
    model = RewardModel.load(base, tuning="full", heads=200, seed=1)
    assert model.heads.weight.std().item() == pytest.approx(65**-0.5, rel=0.05)
    assert not model.heads.bias.any()
    same = RewardModel.load(base, tuning="full", heads=200, seed=1)
    assert torch.equal(model.heads.weight, same.heads.weight)


def test_normalised_scores_have_mean_zero_and_variance_one(base: Path):
    model = RewardModel.load(base, tuning="full", heads=4)
    with torch.no_grad():
        model.heads.bias.add_(torch.tensor([5.0, -3.0, 100.0, 0.0]))
    model.normalise(PAIRS)
    mean, spread = model.score(PAIRS)
    scores = torch.tensor(mean)
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores.std(unbiased=False).item() == pytest.approx(1, abs=1e-3)
    by_hand = (model.utilities(PAIRS) - model.mean_K) / model.std
    assert spread[0] == pytest.approx(by_hand[0].std(unbiased=False).item(), abs=1e-5)
    assert max(spread) < 20, "a head's own zero is no disagreement"


def test_batches_change_no_score_and_keep_the_order(base: Path):
    model = RewardModel.load(base, tuning="full", heads=4)
    assert model.score(PAIRS)[0] == pytest.approx(model.score(PAIRS, max_batch_tokens=16)[0], abs=1e-5)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_folder_comes_back(base: Path, tmp_path: Path, tuning):
    model = RewardModel.load(base, tuning=tuning, heads=3, lora_rank=4)
    _shake(model)
    model.normalise(PAIRS)
    model.save(tmp_path)
    nowhere = base if tuning == "lora" else tmp_path / "nowhere"
    again = RewardModel.load(nowhere, folder=tmp_path, tuning=tuning, heads=8)
    assert again.score(PAIRS) == model.score(PAIRS)
    assert json.loads((tmp_path / "reward.json").read_text())["tuning"] == tuning
    assert not [path for path in tmp_path.iterdir() if str(base).encode() in path.read_bytes()]
    again.save(tmp_path / "copy")
    assert RewardModel.load(nowhere, folder=tmp_path / "copy", tuning=tuning).score(PAIRS) == model.score(PAIRS)


def test_a_full_folder_holds_the_tokenizer(base: Path, tmp_path: Path):
    RewardModel.load(base, tuning="full").save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaModel"]


def test_state_comes_back(base: Path):
    model = RewardModel.load(base, tuning="full")
    _shake(model)
    model.normalise(PAIRS)
    again = RewardModel.load(base, tuning="full")
    again.load_state(model.state())
    assert again.score(PAIRS) == model.score(PAIRS)
    with pytest.raises(VersionCorrupt):
        RewardModel.load(base, tuning="full", heads=5).load_state(model.state())


def test_broken_folders_are_refused(base: Path, tmp_path: Path):
    model = RewardModel.load(base, tuning="full")
    model.save(tmp_path)
    (tmp_path / "reward.json").write_text("{")
    with pytest.raises(VersionCorrupt, match=r"reward\.json"):
        RewardModel.load(base, folder=tmp_path, tuning="full")
    (tmp_path / "reward.json").write_text('{"heads": 4}')
    with pytest.raises(VersionCorrupt, match="cannot be read"):
        RewardModel.load(base, folder=tmp_path, tuning="full")
