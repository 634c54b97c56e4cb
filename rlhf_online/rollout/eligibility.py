"""Which answers may train the policy: every rule is here. Pure.

An answer that may not is left out and counted under its reason, and training goes on:

    as it is read from the log (`eligible_rollouts`)
        greedy      sampled at temperature 0: its log-probs are not those of a distribution
        support     sampled from a part of the vocabulary (top-p, top-k, min-p), or with penalties or a bias
        empty       no prompt, or no token
        logprobs    not a finite log-prob for every token
        version     the policy version is not known for every token
        unfinished  aborted, or cut at a stop string: it says nothing of how the policy ends
        vocabulary  a token that the models do not know
        context     too long for the models with its whole prompt
    while it waits, and as it is taken for an update
        erased      its person erased the conversation
        full        newer answers took its place in the buffer
        stale       written more than `max_staleness` promotions before the live version, or by one that failed
    as the update begins (`usable_rollouts`, `usable_labels`), besides empty, logprobs, vocabulary and greedy
        context     the answer leaves no room for its prompt, which may lose its beginning
        score       missing, or not finite
    by what the algorithm learns from
        singleton   the only answer to its prompt, where the answers to one prompt are compared
        tied        all answers to its prompt are worth the same, where the better is told from the worse
        one_kind    all labels are good, or all are bad, where the good are told from the bad
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from rlhf_online.events import Answer, AnswerRef, Completion
from rlhf_online.models.limits import ModelLimits
from rlhf_online.rollout.types import LabelledAnswer, Rollout, ScoredRollout, groups

T = TypeVar("T")

ENDED = ("stop", "tool_calls")
"""Why an answer ended by itself."""


def eligible_rollouts(
    completion: Completion, eos_ids: Collection[int], limits: ModelLimits
) -> tuple[list[Rollout], Counter[str]]:
    """The answers of `completion` that may train the policy, and how many may not, by reason."""
    rollouts: list[Rollout] = []
    left_out: Counter[str] = Counter()
    for answer in completion.answers:
        if reason := _logged_reason(completion, answer, eos_ids, limits):
            left_out[reason] += 1
            continue
        rollouts.append(
            Rollout(
                rollout_id=rollout_id(AnswerRef(completion_id=completion.completion_id, index=answer.index)),
                prompt_token_ids=completion.prompt_token_ids,
                token_ids=answer.token_ids,
                logprobs=answer.logprobs,
                policy_version=min(span.policy_version for span in answer.spans),
                temperature=completion.sampling.temperature,
                finished=answer.token_ids[-1] in eos_ids,
                origin=completion.origin,
                person=completion.person,
            )
        )
    return rollouts, left_out


def rollout_id(ref: AnswerRef) -> str:
    """The name under which the ledger knows that an answer was used as a rollout."""
    return f"{ref.completion_id}#{ref.index}"


def answer_of(name: str) -> AnswerRef:
    """The answer of which `rollout_id` made the name."""
    completion_id, _, index = name.rpartition("#")
    return AnswerRef(completion_id=completion_id, index=int(index))


def drop_stale(
    rollouts: Iterable[Rollout], lineage: Sequence[str], max_staleness: int
) -> tuple[list[Rollout], Counter[str]]:
    """Those of the last `max_staleness` + 1 versions of `lineage`.

    `lineage`: the policy versions that led to the live one, oldest first, the live one last.
    """
    recent = frozenset(lineage[-1 - max_staleness :])
    return _partition(rollouts, lambda rollout: "" if rollout.policy_version in recent else "stale")


def staleness(lineage: Sequence[str]) -> dict[str, int]:
    """Of what each version of `lineage` has written: how many versions came after it."""
    return {version: len(lineage) - 1 - number for number, version in enumerate(lineage)}


def usable_rollouts(rollouts: Iterable[ScoredRollout], limits: ModelLimits) -> tuple[list[ScoredRollout], Counter[str]]:
    """Those that a policy of these limits can learn from."""

    def reason(scored: ScoredRollout) -> str:
        rollout = scored.rollout
        if unreadable := limits.unreadable(rollout.prompt_token_ids, rollout.token_ids):
            return unreadable
        if not _each_finite(rollout.logprobs, rollout.token_ids):
            return "logprobs"
        if not (rollout.temperature > 0 and math.isfinite(rollout.temperature)):
            return "greedy"
        return "" if math.isfinite(scored.score) else "score"

    return _partition(rollouts, reason)


def usable_labels(labelled: Iterable[LabelledAnswer], limits: ModelLimits) -> tuple[list[LabelledAnswer], Counter[str]]:
    """The same for labelled answers; none where all that is left has one label."""
    kept, left_out = _partition(labelled, lambda item: limits.unreadable(item.prompt_token_ids, item.token_ids))
    if len({item.desirable for item in kept}) == 1:
        return [], left_out + Counter(one_kind=len(kept))
    return kept, left_out


def drop_singleton_groups(rollouts: Sequence[ScoredRollout]) -> tuple[list[ScoredRollout], Counter[str]]:
    """Those of prompts that two or more of them answer."""
    answers = Counter(scored.rollout.prompt_token_ids for scored in rollouts)
    return _partition(rollouts, lambda scored: "" if answers[scored.rollout.prompt_token_ids] > 1 else "singleton")


def drop_tied_groups(
    prompts: Iterable[tuple[int, ...]], worth: Sequence[float]
) -> tuple[list[list[int]], Counter[str]]:
    """Rows of each prompt whose answers are not all worth the same; `prompts` and `worth` are of each answer."""
    kept, tied = [], 0
    for rows in groups(prompts):
        if len({worth[row] for row in rows}) > 1:
            kept.append(rows)
        else:
            tied += len(rows)
    return kept, +Counter(tied=tied)


def _logged_reason(completion: Completion, answer: Answer, eos_ids: Collection[int], limits: ModelLimits) -> str:
    """Why the logged answer may not train the policy; "" if it may."""
    prompt, tokens, spans = completion.prompt_token_ids, answer.token_ids, answer.spans
    if completion.sampling.temperature <= 0:
        return "greedy"
    if not completion.sampling.full_support:
        return "support"
    if not prompt or not tokens:
        return "empty"
    if not _each_finite(answer.logprobs, tokens):
        return "logprobs"
    if not spans or spans[0].first_token != 0 or not all(span.policy_version for span in spans):
        return "version"
    if answer.finish_reason != "length" and not (answer.finish_reason in ENDED and tokens[-1] in eos_ids):
        return "unfinished"
    if unreadable := limits.unreadable(prompt, tokens):
        return unreadable
    return "context" if len(prompt) + len(tokens) > limits.context else ""


def _each_finite(logprobs: Sequence[float], token_ids: Sequence[int]) -> bool:
    return len(logprobs) == len(token_ids) and all(map(math.isfinite, logprobs))


def _partition(items: Iterable[T], reason: Callable[[T], str]) -> tuple[list[T], Counter[str]]:
    """Items without a reason against them, and how many of the others there are, by reason."""
    kept: list[T] = []
    left_out: Counter[str] = Counter()
    for item in items:
        if why := reason(item):
            left_out[why] += 1
        else:
            kept.append(item)
    return kept, left_out
