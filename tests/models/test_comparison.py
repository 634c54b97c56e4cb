"""Policy and reference on the same answers: as each says it alone, and the KL between whole distributions."""

import statistics
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch.nn import functional

from rlhf_online.models.comparison import compare, logprobs_and_kl
from rlhf_online.models.policy import Policy, logits
from rlhf_online.models.tokens import Pair
from rlhf_online.simulation.tiny_model import write_tiny_model

PAIRS: list[Pair] = [((1, 10, 20, 3), (30, 31, 2)), ((1, 11, 3), (40, 2)), ((1, 12, 21, 22, 23, 3), (50, 51, 52, 53))]
Tuning = Literal["full", "lora"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


def shake(policy: Policy, scale: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters().values():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_kl_at_each_token_is_that_of_whole_distributions(base: Path, tuning: Tuning) -> None:
    policy = Policy.load(base, tuning=tuning)
    assert [kl for _, kl in logprobs_and_kl(policy, PAIRS)] == [(0.0,) * len(answer) for _, answer in PAIRS]
    shake(policy)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    temperature_B = torch.tensor([1.0, 0.5, 2.0])
    batch = policy.collate(PAIRS)
    found, outputs = compare(policy, batch, temperature_B), policy.forward(batch, temperature_B)
    assert torch.allclose(found.logprobs_BA, outputs.logprobs_BA, atol=1e-6)
    assert torch.allclose(found.reference_BA, policy.reference_logprobs(batch, temperature_B), atol=1e-6)
    assert torch.allclose(found.values_BA, outputs.values_BA, atol=1e-6)
    temperature_N1 = batch.by_token(temperature_B).unsqueeze(1)
    ours_NV, theirs_NV = (
        (logits(policy, batch, reference=which) / temperature_N1).log_softmax(1) for which in (False, True)
    )
    kl_BA = batch.by_answer(functional.kl_div(theirs_NV, ours_NV, reduction="none", log_target=True).sum(1))
    assert torch.allclose(found.kl_BA, kl_BA, atol=1e-6) and found.kl_BA[batch.mask_BA].min() > 1e-4
    again = logprobs_and_kl(policy, PAIRS[::-1])[::-1]
    assert [logprobs for logprobs, _ in again] == [pytest.approx(each, abs=1e-6) for each in policy.logprobs(PAIRS)]
    assert again[0][1] == pytest.approx(compare(policy, policy.collate(PAIRS[:1])).kl_BA[0].tolist(), abs=1e-6)


def test_a_few_answers_tell_the_kl_better_than_their_tokens_do(base: Path) -> None:
    """k1, which their log-probabilities say, is below 0 for some and varies several times as much."""
    policy = Policy.load(base, tuning="full")
    shake(policy, 0.01)
    prompts = [prompt for prompt, _ in PAIRS] * 4
    exact, k1 = [], []
    for seed in range(20):
        answers = policy.sample(prompts, max_tokens=6, temperature=1.0, seed=seed, eos_ids=(2,))
        pairs = list(zip(prompts, answers, strict=True))
        said, reference = logprobs_and_kl(policy, pairs), policy.logprobs(pairs, reference=True)
        exact.append(statistics.fmean(sum(kl) for _, kl in said))
        k1.append(statistics.fmean(sum(ours) - sum(r) for (ours, _), r in zip(said, reference, strict=True)))
    assert min(k1) < 0 < min(exact)
    assert statistics.stdev(exact) < statistics.stdev(k1) / 3
    assert statistics.fmean(k1) == pytest.approx(statistics.fmean(exact), abs=4 * statistics.stdev(k1) / 20**0.5)
