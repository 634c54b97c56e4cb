"""What the gate compares: answers that the live version gave, and the candidate's to the same prompts.

Invariant: all scores of one comparison are by one reward version.
"""

import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from rlhf_online.gate.check import AnswerSet, Evidence, Tokens
from rlhf_online.rewards.sources import Scored
from rlhf_online.rollout.types import Rollout, ScoredRollout

Pair = tuple[Tokens, Tokens]
Logprobs = Sequence[Sequence[float]]


def comparable(rollout: Rollout, live_version: str, temperature: float, max_tokens: int) -> bool:
    """True for an answer that the live version wrote whole at this temperature, and whose first `max_tokens` are known.

    One that was cut before that, by its client's own limit or the context, says nothing of how it would have gone on.
    """
    whole = rollout.finished or len(rollout.token_ids) >= max_tokens
    return whole and rollout.policy_version == live_version and rollout.temperature == temperature


def baseline(
    scored: Sequence[ScoredRollout], live_version: str, temperature: float, count: int, max_tokens: int
) -> list[ScoredRollout]:
    """Up to `count` `comparable` answers, one a prompt while there are such.

    A second answer to a prompt is used only where there are fewer prompts than `count`.
    """
    first: dict[Tokens, ScoredRollout] = {}
    more: list[ScoredRollout] = []
    for item in scored:
        rollout = item.rollout
        if not comparable(rollout, live_version, temperature, max_tokens):
            continue
        if first.setdefault(rollout.prompt_token_ids, item) is not item:
            more.append(item)
    return (list(first.values()) + more)[:count]


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnesses:
    """Who is asked for evidence.

    `sample(prompts)` gives the candidate's answers; `score(pairs)` the scores by one reward version and one set of
    weights; `logprobs_and_kl(pairs)` of each answer's tokens the log-probabilities by the candidate, and at each the KL
    from the candidate's distribution to the reference's, nats; `decode(tokens)` their text; `eos_ids` end an answer
    that was not cut; `held_back(pairs)`, where there is such a model, the scores by that.
    """

    sample: Callable[[list[Tokens]], list[Tokens]]
    score: Callable[[list[Pair]], list[Scored]]
    logprobs_and_kl: Callable[[list[Pair]], Sequence[tuple[Sequence[float], Sequence[float]]]]
    decode: Callable[[Tokens], str]
    eos_ids: Collection[int]
    held_back: Callable[[list[Pair]], list[Scored]] | None = None


def gather(
    live: Sequence[ScoredRollout],
    witnesses: Witnesses,
    *,
    max_tokens: int,
    reward_model: Mapping[str, float],
    held_back_model: Mapping[str, float],
) -> Evidence:
    """Let the candidate answer the prompts of `live`, score both versions' answers, and measure the candidate's KL.

    The candidate's answers are of `max_tokens` at most. People may have been given longer ones: those are cut to
    `max_tokens` and scored as cut. The KL to the reference, nats an answer, is the sum of what it is at each token of
    the candidate's own answers, never below 0 (`algorithms.kl`). `reward_model` and `held_back_model` are the figures
    of what scores.
    """
    prompts = [item.rollout.prompt_token_ids for item in live]
    answers = witnesses.sample(prompts) if prompts else []
    theirs = [item.rollout.token_ids[:max_tokens] for item in live]
    said = witnesses.logprobs_and_kl(list(zip(prompts, answers, strict=True))) if prompts else ()
    pairs, count = list(zip(prompts * 2, [*answers, *theirs], strict=True)), len(prompts)
    scored = _scores(witnesses.score, pairs)
    apart = _scores(witnesses.held_back, pairs) if witnesses.held_back else []

    def answer_set(token_ids: list[Tokens], rows: slice, logprobs: Logprobs) -> AnswerSet:
        return AnswerSet(
            token_ids=token_ids,
            texts=[witnesses.decode(ids) for ids in token_ids],
            scores=[item.score for item in scored[rows]],
            spreads=[item.spread for item in scored[rows]],
            logprobs=[statistics.fmean(values) if values else math.nan for values in logprobs],
            held_back=[item.score for item in apart[rows]],
            held_back_spreads=[item.spread for item in apart[rows]],
            finished=[ids[-1:] != () and ids[-1] in witnesses.eos_ids for ids in token_ids],
        )

    return Evidence(
        prompts=prompts,
        prompt_texts=[witnesses.decode(prompt) for prompt in prompts],
        candidate=answer_set(answers, slice(count), [logprobs for logprobs, _ in said]),
        live=answer_set(theirs, slice(count, None), [item.rollout.logprobs[:max_tokens] for item in live]),
        kl=sum(sum(kl) for _, kl in said) / max(1, count),
        reward_model=dict(reward_model),
        origins=[item.rollout.origin for item in live],
        people=[item.rollout.person for item in live],
        held_back_model=dict(held_back_model),
    )


def _scores(score: Callable[[list[Pair]], list[Scored]], pairs: Sequence[Pair]) -> list[Scored]:
    """Of all pairs; NaN of an answer without a token, which no reward model reads."""
    asked = [pair for pair in pairs if pair[1]]
    found = iter(score(asked) if asked else ())
    return [next(found) if answer else Scored(math.nan, math.nan) for _, answer in pairs]
