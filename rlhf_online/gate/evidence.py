"""What the gate compares: answers that the live version gave, and the candidate's to the same prompts.

Invariant: all scores of one comparison are by one reward version.
"""

from collections.abc import Callable, Sequence

from rlhf_online.gate.check import AnswerSet, Evidence
from rlhf_online.rollout.types import Rollout, ScoredRollout

Tokens = tuple[int, ...]
Pair = tuple[Tokens, Tokens]


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


def gather(
    live: Sequence[ScoredRollout],
    *,
    max_tokens: int,
    sample: Callable[[list[Tokens]], list[Tokens]],
    score: Callable[[list[Pair]], list[float]],
    kl_of: Callable[[list[Pair]], float],
) -> Evidence:
    """Let the candidate answer the prompts of `live`, score its answers, and measure its KL on them.

    `sample(prompts)` gives the candidate's answers, of `max_tokens` at most; `score(pairs)` the scores by the version
    that scored `live`; `kl_of(pairs)` the candidate's KL to the reference in nats an answer, over its own answers.
    People may have been given longer answers: those are cut to `max_tokens` and scored as cut, as the candidate's are.
    """
    if not live:
        return Evidence(candidate=AnswerSet(scores=(), lengths=()), live=AnswerSet(scores=(), lengths=()), kl=0.0)
    prompts = [item.rollout.prompt_token_ids for item in live]
    answers = sample(prompts)
    pairs = list(zip(prompts, answers, strict=True))
    kl = kl_of(pairs)
    cut = [(prompt, item.rollout.token_ids[:max_tokens]) for prompt, item in zip(prompts, live, strict=True)]
    long = [row for row, item in enumerate(live) if len(item.rollout.token_ids) > max_tokens]
    scores = score(pairs + [cut[row] for row in long])
    scores, cut_scores = scores[: len(pairs)], dict(zip(long, scores[len(pairs) :], strict=True))
    return Evidence(
        candidate=AnswerSet(scores=scores, lengths=[len(answer) for answer in answers]),
        live=AnswerSet(
            scores=[cut_scores.get(row, item.score) for row, item in enumerate(live)],
            lengths=[len(answer) for _, answer in cut],
        ),
        kl=kl,
    )
