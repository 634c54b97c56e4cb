"""The verdicts: may the policy learn from this reward model, and may a candidate take the place of what serves?

A candidate answers prompts that the live version answered; the reward service scores both with one reward version.
It is refused for drifting from the reference (KL), losing to the live version, or answers of a runaway length.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rlhf_online.config import GateSettings, RewardTraining
from rlhf_online.rollout.buffer import Rollout, ScoredRollout

Tokens = tuple[int, ...]
Pair = tuple[Tokens, Tokens]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Answers of one version to the gate's prompts: scores and lengths in tokens, in the prompts' order."""

    scores: Sequence[float]
    lengths: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`reasons` says why not, one entry a criterion that failed; `figures` is what was measured."""

    passed: bool
    reasons: tuple[str, ...]
    figures: dict[str, float]


def doubt(figures: Mapping[str, float], settings: RewardTraining) -> str:
    """Why the policy may not move yet, "" if it may: `figures` are those of the reward model on held-out votes, and
    `taught`, the number of objectives that count and that votes have ordered answers by.

    Enough is an accuracy on comparisons, or on thumbs the share of answers with a thumb up that are above those with a
    thumb down, whose 95 % interval lies above `settings.policy_accuracy`; so few votes are never enough by luck.
    """
    if not figures.get("taught", 1):
        return "no vote has taught the reward model what is better: a comparison does, or thumbs up and thumbs down"
    least = settings.policy_accuracy
    low = max(figures.get("accuracy_low", 0.0), figures.get("thumb_auc_low", 0.0))
    if least == 0 or low > least:
        return ""
    pairs, thumbs = figures.get("accuracy_n", 0), figures.get("thumb_n", 0)
    return (
        f"the reward model orders held-out votes rightly more than {low:.2f} of the time, by {pairs:g} pairs and "
        f"{thumbs:g} thumbs, and reward.policy_accuracy asks for more than {least:g}: more votes are needed"
    )


def judge(candidate: Side, live: Side, kl: float, settings: GateSettings) -> Verdict:
    """The verdict on a candidate whose KL to the reference is `kl` nats an answer.

    A win is a higher score on the same prompt; a tie is half a win. Pairs with a score that is not finite are left
    out. Nothing to compare is no pass.
    """
    pairs = [
        (ours, theirs)
        for ours, theirs in zip(candidate.scores, live.scores, strict=True)
        if math.isfinite(ours + theirs)
    ]
    figures: dict[str, float] = {"kl": kl, "samples": len(pairs)}
    if not pairs:
        return Verdict(passed=False, reasons=("no answers to compare with the live version's",), figures=figures)
    wins = [1.0 if ours > theirs else 0.5 if ours == theirs else 0.0 for ours, theirs in pairs]
    win_rate = statistics.fmean(wins)
    ratio = statistics.fmean(candidate.lengths) / max(1.0, statistics.fmean(live.lengths))
    figures |= {
        "win_rate": win_rate,
        "win_rate_stderr": _stderr(wins),
        "score": statistics.fmean(ours for ours, _ in pairs),
        "live_score": statistics.fmean(theirs for _, theirs in pairs),
        "length": statistics.fmean(candidate.lengths),
        "live_length": statistics.fmean(live.lengths),
        "length_ratio": ratio,
    }
    reasons = []
    if not kl <= settings.max_kl:
        reasons.append(f"KL to the reference {kl:.2f} > {settings.max_kl:g} nats an answer")
    if win_rate < settings.min_win_rate:
        reasons.append(f"win rate over the live version {win_rate:.2f} < {settings.min_win_rate:g}")
    if ratio > settings.max_length_ratio:
        reasons.append(f"answers {ratio:.2f} times as long as the live version's > {settings.max_length_ratio:g}")
    if ratio < settings.min_length_ratio:
        reasons.append(f"answers {ratio:.2f} times as long as the live version's < {settings.min_length_ratio:g}")
    return Verdict(passed=not reasons, reasons=tuple(reasons), figures=figures)


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


def examine(
    live: Sequence[ScoredRollout],
    settings: GateSettings,
    *,
    max_tokens: int,
    sample: Callable[[list[Tokens]], list[Tokens]],
    score: Callable[[list[Pair]], list[float]],
    kl_of: Callable[[list[Pair]], float],
) -> Verdict:
    """Let the candidate answer the prompts of `live`, score its answers, measure its KL on them, and judge.

    `sample(prompts)` gives the candidate's answers, of `max_tokens` at most; `score(pairs)` the scores by the version
    that scored `live`; `kl_of(pairs)` the candidate's KL to the reference in nats an answer, over its own answers.
    People may have been given longer answers: those are cut to `max_tokens` and scored as cut, as the candidate's are.
    """
    if not live:
        return judge(Side(scores=(), lengths=()), Side(scores=(), lengths=()), 0.0, settings)
    prompts = [item.rollout.prompt_token_ids for item in live]
    answers = sample(prompts)
    pairs = list(zip(prompts, answers, strict=True))
    kl = kl_of(pairs)
    cut = [(prompt, item.rollout.token_ids[:max_tokens]) for prompt, item in zip(prompts, live, strict=True)]
    long = [row for row, item in enumerate(live) if len(item.rollout.token_ids) > max_tokens]
    scores = score(pairs + [cut[row] for row in long])
    scores, cut_scores = scores[: len(pairs)], dict(zip(long, scores[len(pairs) :], strict=True))
    return judge(
        Side(scores=scores, lengths=[len(answer) for answer in answers]),
        Side(
            scores=[cut_scores.get(row, item.score) for row, item in enumerate(live)],
            lengths=[len(answer) for _, answer in cut],
        ),
        kl,
        settings,
    )


def _stderr(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.5
