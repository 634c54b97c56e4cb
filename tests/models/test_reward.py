"""The reward model: scores, normalisation, and folders that come back."""

import json
from pathlib import Path

import pytest
import torch

from rlhf_online.errors import VersionCorrupt
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.models.trunk import Lora
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
    model = RewardModel.load(base, tuning="full", heads=Heads(members=3))
    found = model.utilities(PAIRS)
    assert found.shape == (20, 1, 3)
    for index in (0, 3, 19):
        prompt, answer = PAIRS[index]
        with torch.no_grad():
            hidden = model.decoder(torch.tensor([[*prompt, *answer]])).last_hidden_state[0, -1]
            assert torch.allclose(found[index, 0], model.heads(hidden), atol=1e-5)


def test_utility_is_the_mean_over_the_answers_tokens_where_that_is_the_readout(base: Path):
    model = RewardModel.load(base, tuning="full", heads=Heads(members=3, readout="mean"))
    pairs: list[Pair] = [*PAIRS, ((1, 10, 20, 3), ())]
    found = model.utilities(pairs)
    for index in (0, 3, 19, 20):
        prompt, answer = pairs[index]
        with torch.no_grad():
            hidden = model.decoder(torch.tensor([[*prompt, *answer]])).last_hidden_state[0, -max(1, len(answer)) :]
            assert torch.allclose(found[index, 0], model.heads(hidden).mean(0), atol=1e-5)
    assert not any(part.any() for part in model.linear(torch.ones(1))), "one token is no value of the whole"


def test_heads_begin_small_and_differ(base: Path):
    model = RewardModel.load(base, tuning="full", heads=Heads(members=200), seed=1)
    assert model.heads.weight.std().item() == pytest.approx(65**-0.5, rel=0.05)
    assert not model.heads.bias.any()
    same = RewardModel.load(base, tuning="full", heads=Heads(members=200), seed=1)
    assert torch.equal(model.heads.weight, same.heads.weight)


def test_normalised_scores_have_mean_zero_and_variance_one(base: Path):
    model = RewardModel.load(base, tuning="full", heads=Heads(members=4))
    with torch.no_grad():
        model.heads.bias.add_(torch.tensor([5.0, -3.0, 100.0, 0.0]))
    model.normalise(PAIRS)
    scores_NK = model.scores(PAIRS)[:, 0]
    assert scores_NK.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores_NK.mean(1).std(unbiased=False).item() == pytest.approx(1, abs=1e-3)
    assert scores_NK.std(1).max() < 20, "a head's own zero is no disagreement"


def test_each_objective_has_heads_and_a_normal_of_its_own(base: Path):
    model = RewardModel.load(base, tuning="full", heads=Heads(objectives=("helpful", "harmless"), members=3))
    _shake(model)
    with torch.no_grad():
        model.heads.weight[3:] *= 10
    model.normalise(PAIRS)
    mean_NO = model.scores(PAIRS).mean(2)
    assert model.utilities(PAIRS).shape == (20, 2, 3)
    assert mean_NO.mean(0).tolist() == pytest.approx([0, 0], abs=1e-4)
    assert mean_NO.std(0, unbiased=False).tolist() == pytest.approx([1, 1], abs=1e-3)
    assert model.correlation_OO[0, 1].item() == pytest.approx((mean_NO[:, 0] * mean_NO[:, 1]).mean().item(), abs=1e-4)
    assert torch.equal(model.utilities(PAIRS)[:, 1, 2:], model.utilities(PAIRS)[:, 1:, 2])
    with torch.no_grad():
        hidden = model.decoder(torch.tensor([[*PAIRS[0][0], *PAIRS[0][1]]])).last_hidden_state[0, -1]
    weight_1d, bias_1 = model.linear(torch.tensor([0.3, 2.0]))
    combined = 0.3 * mean_NO[0, 0] + 2 * mean_NO[0, 1]
    assert (weight_1d @ hidden + bias_1).item() == pytest.approx(combined.item(), abs=1e-3)


def test_a_model_of_another_tokenizer_is_refused(base: Path, tmp_path: Path):
    model = RewardModel.load(base, tuning="lora", lora=Lora(4))
    model.save(tmp_path / "version")
    other = tmp_path / "other"
    write_tiny_model(other, weights_seed=3)
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"copper"', '"bronze"'))
    assert RewardModel.load(other, tuning="lora").tokenizer != model.tokenizer
    with pytest.raises(VersionCorrupt, match="another tokenizer"):
        RewardModel.load(other, folder=tmp_path / "version", tuning="lora")


def test_batches_change_no_score_and_keep_the_order(base: Path):
    model = RewardModel.load(base, tuning="full", heads=Heads(members=4))
    assert torch.allclose(model.scores(PAIRS), model.scores(PAIRS, max_batch_tokens=16), atol=1e-5)


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_folder_comes_back(base: Path, tmp_path: Path, tuning, readout):
    model = RewardModel.load(base, tuning=tuning, heads=Heads(members=3, readout=readout), lora=Lora(4))
    _shake(model)
    model.normalise(PAIRS)
    model.save(tmp_path)
    nowhere = base if tuning == "lora" else tmp_path / "nowhere"
    again = RewardModel.load(nowhere, folder=tmp_path, tuning=tuning, heads=Heads(members=8))
    assert torch.equal(again.scores(PAIRS), model.scores(PAIRS))
    assert json.loads((tmp_path / "reward.json").read_text())["tuning"] == tuning
    assert not [path for path in tmp_path.iterdir() if str(base).encode() in path.read_bytes()]
    again.save(tmp_path / "copy")
    copy = RewardModel.load(nowhere, folder=tmp_path / "copy", tuning=tuning)
    assert torch.equal(copy.scores(PAIRS), model.scores(PAIRS))


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
    assert torch.equal(again.scores(PAIRS), model.scores(PAIRS))
    with pytest.raises(VersionCorrupt):
        RewardModel.load(base, tuning="full", heads=Heads(members=5)).load_state(model.state())


def test_broken_folders_are_refused(base: Path, tmp_path: Path):
    model = RewardModel.load(base, tuning="full")
    model.save(tmp_path)
    (tmp_path / "reward.json").write_text("{")
    with pytest.raises(VersionCorrupt, match=r"reward\.json"):
        RewardModel.load(base, folder=tmp_path, tuning="full")
    (tmp_path / "reward.json").write_text('{"heads": 4}')
    with pytest.raises(VersionCorrupt, match="it lacks objectives"):
        RewardModel.load(base, folder=tmp_path, tuning="full")
    model.save(tmp_path / "other")
    written = (tmp_path / "other" / "reward.json").read_text()
    (tmp_path / "other" / "reward.json").write_text(written.replace('"last"', '"first"'))
    with pytest.raises(VersionCorrupt, match="its readout 'first' is none of last, mean"):
        RewardModel.load(base, folder=tmp_path / "other", tuning="full")
