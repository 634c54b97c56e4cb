"""A world in which every answer can be written down, so that the best policy is known in closed form.

6 tokens, the first of which ends an answer, and at most 4 of them: 156 answers that end by themselves and 625 that are
cut off, 781 for each of 4 prompts. The KL-regularised objective J(π) = E[r] − β KL(π ‖ π_ref), averaged over prompts,
has the optimum π* ∝ π_ref exp(r / β), and any policy misses it by J* − J(π) = β KL(π ‖ π*).

Shapes: P prompts, A answers, T tokens of an answer, X prefixes (what an answer may be before its next token), V tokens.
A policy is its log-probs (P, X, V) of the next token. Everything is float64, and differentiable, so that autograd gives
the exact policy gradient.
"""

import itertools
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from rlhf_online.algorithms.masked import masked_fill

END = 0
VOCABULARY, MAX_TOKENS, PROMPTS = 6, 4, 4
REWARD_STD = 0.5
"""Of the rewards under the reference: with β = .2 the best policy is some 3 nats away from it."""


@dataclass(frozen=True, slots=True)
class AnswerTable:
    """Every answer: its tokens, the prefix that each of them follows, and which of the 4 places are real."""

    tokens_AT: Tensor
    prefixes_AT: Tensor
    mask_AT: Tensor
    prefixes: int


@cache
def all_answers() -> AnswerTable:
    """Prefixes are numbered by length, then like a dictionary; an answer is a prefix and its end, or 4 other tokens."""
    words = range(END + 1, VOCABULARY)
    prefixes = [prefix for length in range(MAX_TOKENS) for prefix in itertools.product(words, repeat=length)]
    number = {prefix: index for index, prefix in enumerate(prefixes)}
    answers = [(*prefix, END) for prefix in prefixes] + list(itertools.product(words, repeat=MAX_TOKENS))
    tokens_AT = torch.zeros(len(answers), MAX_TOKENS, dtype=torch.long)
    prefixes_AT = torch.zeros_like(tokens_AT)
    for row, answer in enumerate(answers):
        tokens_AT[row, : len(answer)] = torch.tensor(answer)
        prefixes_AT[row, : len(answer)] = torch.tensor([number[answer[:t]] for t in range(len(answer))])
    mask_AT = torch.arange(MAX_TOKENS) < torch.tensor([len(answer) for answer in answers]).unsqueeze(1)
    return AnswerTable(tokens_AT, prefixes_AT, mask_AT, len(prefixes))


@dataclass(frozen=True, slots=True)
class EnumerableWorld:
    """A reference policy and a reward for every answer."""

    reference_PXV: Tensor
    rewards_PA: Tensor

    @classmethod
    def drawn(cls, seed: int) -> "EnumerableWorld":
        """Reference logits are N(0, 1). A reward is the sum of one N(0, 1) for each token in its place and one for each
        pair of neighbours, shifted and scaled to mean 0 and REWARD_STD over the reference's answers to the prompt."""
        answers, generator = all_answers(), torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        reference_PXV = normal(PROMPTS, answers.prefixes, VOCABULARY).log_softmax(-1)
        place_PTV, pair_PVV = normal(PROMPTS, MAX_TOKENS, VOCABULARY), normal(PROMPTS, VOCABULARY, VOCABULARY)
        tokens_AT, mask_AT = answers.tokens_AT, answers.mask_AT
        places_PAT = place_PTV[:, torch.arange(MAX_TOKENS), tokens_AT]
        pairs_PAt = pair_PVV[:, tokens_AT[:, :-1], tokens_AT[:, 1:]]
        rewards_PA = masked_fill(places_PAT, mask_AT).sum(2) + masked_fill(pairs_PAt, mask_AT[:, 1:]).sum(2)
        p_PA = answer_logprobs(reference_PXV).exp()
        centred_PA = rewards_PA - (p_PA * rewards_PA).sum(1, keepdim=True)
        std_P1 = (p_PA * centred_PA.square()).sum(1, keepdim=True).sqrt()
        return cls(reference_PXV, REWARD_STD * centred_PA / std_P1)

    def kl(self, policy_PXV: Tensor) -> Tensor:
        """Exact KL(π ‖ π_ref), nats an answer."""
        return divergence(answer_logprobs(policy_PXV), answer_logprobs(self.reference_PXV))

    def objective(self, policy_PXV: Tensor, beta: float) -> Tensor:
        """Exact J(π)."""
        reward_P = (answer_logprobs(policy_PXV).exp() * self.rewards_PA).sum(1)
        return reward_P.mean() - beta * self.kl(policy_PXV)

    def optimum(self, beta: float) -> tuple[Tensor, float]:
        """log π* of every answer, (P, A), and J* = β · mean log Σ π_ref exp(r / β)."""
        tilted_PA = answer_logprobs(self.reference_PXV) + self.rewards_PA / beta
        return tilted_PA.log_softmax(1), beta * tilted_PA.logsumexp(1).mean().item()

    def gap(self, policy_PXV: Tensor, beta: float) -> float:
        """(J* − J(π)) / (J* − J(π_ref)): what a policy has left of what there is to gain."""
        _, best = self.optimum(beta)
        start = self.objective(self.reference_PXV, beta).item()
        return (best - self.objective(policy_PXV, beta).item()) / (best - start)


def token_logprobs(policy_PXV: Tensor) -> Tensor:
    """log π of each token of every answer, (P, A, T); 0 where an answer has ended."""
    answers = all_answers()
    return masked_fill(policy_PXV[:, answers.prefixes_AT, answers.tokens_AT], answers.mask_AT)


def answer_logprobs(policy_PXV: Tensor) -> Tensor:
    """log π of every answer, (P, A)."""
    return token_logprobs(policy_PXV).sum(2)


def divergence(logprobs_PA: Tensor, other_PA: Tensor) -> Tensor:
    """Exact KL(p ‖ q) of distributions over answers, nats, mean over prompts."""
    return (logprobs_PA.exp() * (logprobs_PA - other_PA)).sum(1).mean()


def sample(policy_PXV: Tensor, per_prompt: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`per_prompt` answers to each prompt: (N,) prompts and (N,) answers, the first prompt's first."""
    answers_PN = torch.multinomial(answer_logprobs(policy_PXV).exp(), per_prompt, replacement=True, generator=generator)
    return torch.arange(PROMPTS).repeat_interleave(per_prompt), answers_PN.flatten()
