"""Values of tokens, and decoding that follows them: what is sampled is what the formula says, token by token."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rlhf_online.algorithms.ilql import steered
from rlhf_online.models import sampling
from rlhf_online.models.action_values import ActionValues, Steering
from rlhf_online.models.policy import Policy, logits, output_embedding
from rlhf_online.models.tokens import Pair
from rlhf_online.models.trunk import Lora
from rlhf_online.simulation.tiny_model import write_tiny_model

BETA = 0.5
PROMPT = (5, 9, 12)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_model(folder, weights_seed=0)
    return folder


@pytest.fixture
def policy(base: Path) -> Policy:
    return Policy.load(base, tuning="full")


@pytest.fixture
def values(base: Path, policy: Policy) -> ActionValues:
    """Of which no head is at 0 any more, and no two are alike."""
    found = ActionValues.load(
        base,
        tuning="full",
        lora=Lora(8),
        embedding_Vd=output_embedding(policy),
        device=torch.device("cpu"),
        dtype=torch.float32,
        seed=0,
    )
    generator = torch.Generator().manual_seed(0)
    for head in (*found.q, *found.slow, found.v):
        *_, last = head.modules()
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.6, generator=generator)
    return found


def expected(policy: Policy, values: ActionValues, pair: Pair) -> Tensor:
    """Log-probabilities of the steered policy before each token of the answer, (N, V)."""
    batch = policy.collate([pair])
    advantages_NV = values.advantages(values.hidden(values.packer.pack([pair])))
    return steered(logits(policy, batch, reference=True).log_softmax(-1), advantages_NV, BETA)


def draw(policy: Policy, values: ActionValues, count: int, max_tokens: int) -> list[tuple[int, ...]]:
    steering = Steering(values, BETA)
    return sampling.sample(
        policy.lm, [PROMPT] * count, max_tokens=max_tokens, temperature=1.0, seed=0, eos_ids=(1,), steering=steering
    )


@torch.no_grad()
def test_tokens_are_drawn_as_often_as_the_steered_policy_says_also_after_a_first(policy: Policy, values: ActionValues):
    """χ² of the first tokens, and of the second ones after the most frequent first, both with what is rare together."""
    answers = draw(policy, values, 6000, 2)
    first = Counter(answer[0] for answer in answers).most_common(1)[0][0]
    seconds = [answer[1] for answer in answers if answer[0] == first and len(answer) > 1]
    say_NV = expected(policy, values, (PROMPT, (first, 3))).exp()
    plain_NV = logits(policy, policy.collate([(PROMPT, (first, 3))])).softmax(-1)
    for drawn, p_V, plain_V in zip(([a[0] for a in answers], seconds), say_NV, plain_NV, strict=True):
        assert len(drawn) > 200
        assert _chi_squared(drawn, p_V) < 3, "degrees of freedom each"
        assert _chi_squared(drawn, plain_V) > 5, "it is not what the model says by itself"


@torch.no_grad()
def test_values_that_are_nothing_change_nothing(base: Path, policy: Policy):
    values = ActionValues.load(
        base, tuning="lora", lora=Lora(4), embedding_Vd=output_embedding(policy), device=torch.device("cpu"),
        dtype=torch.float32, seed=0,
    )  # fmt: skip
    plain = sampling.sample(policy.lm, [PROMPT] * 20, max_tokens=8, temperature=1.0, seed=0, eos_ids=(1,))
    assert draw(policy, values, 20, 8) == plain


def test_the_slow_heads_follow_the_others_and_do_not_learn(values: ActionValues):
    assert not any(name.startswith("slow") for name in values.parameters())
    before = [each.clone() for each in values.slow.parameters()]
    values.follow()
    for old, slow, fast in zip(before, values.slow.parameters(), values.q.parameters(), strict=True):
        torch.testing.assert_close(slow, old + 0.02 * (fast - old))


def _chi_squared(drawn: list[int], p_V: Tensor) -> float:
    """Per degree of freedom; tokens of which fewer than 10 are expected are one."""
    counts_V = torch.bincount(torch.tensor(drawn), minlength=len(p_V)).double()
    expected_V = p_V.double() * len(drawn)
    rare_V = expected_V < 10
    observed = torch.cat([counts_V[~rare_V], counts_V[rare_V].sum().reshape(1)])
    awaited = torch.cat([expected_V[~rare_V], expected_V[rare_V].sum().reshape(1)])
    return (((observed - awaited).square() / awaited.clamp(min=1e-9)).sum() / len(observed)).item()
