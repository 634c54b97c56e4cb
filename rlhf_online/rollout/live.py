"""Answers that people really got, as rollouts.

An answer qualifies if the distribution it was drawn from is known exactly: full support, a temperature above zero,
a log-prob for every token, and the version of every token. It must have come to an end, by an end token or at the
token limit; one that was aborted or cut at a stop string says nothing of how the policy ends. The others are left out,
each counted under its reason:

    greedy      sampled at temperature 0               support     from a part of the vocabulary only, or with penalties
    empty       no prompt, or no token                 logprobs    not a finite one for every token
    version     not known for every token              unfinished  aborted, or cut at a stop string
"""

import math
from collections import Counter
from collections.abc import Collection

from rlhf_online.events import Answer, AnswerRef, Completion
from rlhf_online.rollout.buffer import Rollout


def rollouts_of(completion: Completion, eos_ids: Collection[int]) -> tuple[list[Rollout], Counter[str]]:
    """The answers of `completion` that may train the policy, and how many may not, by reason."""
    reasons = [_unfit(completion, answer, eos_ids) for answer in completion.answers]
    rollouts = [
        Rollout(
            rollout_id=rollout_id(AnswerRef(completion_id=completion.completion_id, index=answer.index)),
            prompt_token_ids=completion.prompt_token_ids,
            token_ids=answer.token_ids,
            logprobs=answer.logprobs,
            policy_version=min(span.policy_version for span in answer.spans),
            temperature=completion.sampling.temperature,
            finished=answer.token_ids[-1] in eos_ids,
        )
        for answer, reason in zip(completion.answers, reasons, strict=True)
        if not reason
    ]
    return rollouts, Counter(filter(None, reasons))


def rollout_id(ref: AnswerRef) -> str:
    """The name under which the ledger knows that an answer was used as a rollout."""
    return f"{ref.completion_id}#{ref.index}"


def _unfit(completion: Completion, answer: Answer, eos_ids: Collection[int]) -> str:
    """Why the answer may not train the policy; "" if it may."""
    if completion.sampling.temperature <= 0:
        return "greedy"
    if not completion.sampling.full_support:
        return "support"
    if not completion.prompt_token_ids or not answer.token_ids:
        return "empty"
    if len(answer.logprobs) != len(answer.token_ids) or not all(map(math.isfinite, answer.logprobs)):
        return "logprobs"
    spans = answer.spans
    if not spans or spans[0].first_token != 0 or not all(span.policy_version for span in spans):
        return "version"
    ended = answer.finish_reason == "length" or (answer.finish_reason == "stop" and answer.token_ids[-1] in eos_ids)
    return "" if ended else "unfinished"
