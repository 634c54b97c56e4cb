"""Answers that people really got, as rollouts.

An answer qualifies if the distribution it was drawn from is known exactly: full support, a temperature above zero,
a log-prob for every token, and the version of every token. It must have come to an end, by an end token or at the
token limit; one that was aborted or cut at a stop string says nothing of how the policy ends.
"""

import math
from collections.abc import Collection

from rlhf_online.events import Answer, AnswerRef, Completion
from rlhf_online.rollout.buffer import Rollout


def rollouts_of(completion: Completion, eos_ids: Collection[int]) -> list[Rollout]:
    """The answers of `completion` that may train the policy."""
    sampling = completion.sampling
    if not sampling.full_support or sampling.temperature <= 0 or not completion.prompt_token_ids:
        return []
    return [
        Rollout(
            rollout_id=rollout_id(AnswerRef(completion_id=completion.completion_id, index=answer.index)),
            prompt_token_ids=completion.prompt_token_ids,
            token_ids=answer.token_ids,
            logprobs=answer.logprobs,
            policy_version=min(span.policy_version for span in answer.spans),
            temperature=sampling.temperature,
            finished=answer.token_ids[-1] in eos_ids,
        )
        for answer in completion.answers
        if _qualifies(answer, eos_ids)
    ]


def rollout_id(ref: AnswerRef) -> str:
    """The name under which the ledger knows that an answer was used as a rollout."""
    return f"{ref.completion_id}#{ref.index}"


def _qualifies(answer: Answer, eos_ids: Collection[int]) -> bool:
    if not answer.token_ids or len(answer.logprobs) != len(answer.token_ids):
        return False
    if not all(math.isfinite(value) for value in answer.logprobs):
        return False
    if not answer.spans or answer.spans[0].first_token != 0 or not all(span.policy_version for span in answer.spans):
        return False
    match answer.finish_reason:
        case "stop":
            return answer.token_ids[-1] in eos_ids
        case "length":
            return True
        case _:
            return False
