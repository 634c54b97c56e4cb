"""Answers for the policy update, with the log-probs of the policy that gave them, and the bound on their age."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One answer, sampled from the full support.

    `logprobs[i]` is log p(token i) under the distribution sampled from, temperature applied. `policy_version` is the
    oldest version that wrote any of its tokens. `finished` says that it ended by itself (its last token is an end).
    """

    rollout_id: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    policy_version: str
    temperature: float
    finished: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRollout:
    """A rollout and its score (normalised, higher is better) by one reward version."""

    rollout: Rollout
    score: float
