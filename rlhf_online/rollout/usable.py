"""Which answers may train the policy. The others are left out, each counted under its reason; training goes on. Pure.

empty        no prompt, or no token                     logprobs    not a finite one for every token
vocabulary   a token that the model does not know       greedy      not sampled at a temperature above 0
context      the answer leaves no room for its prompt   score       missing or not finite
alone        the only answer to its prompt, where answers of one prompt are compared
tied         all answers to its prompt have one score, where the better is told from the worse
one_kind     all labels are good, or all are bad, where the good are told from the bad
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

from rlhf_online.rollout.buffer import LabelledAnswer, ScoredRollout


def usable_rollouts(
    rollouts: Iterable[ScoredRollout], *, vocabulary: int, context: int
) -> tuple[list[ScoredRollout], Counter[str]]:
    """Those that a model of this vocabulary and context can learn from, and how many cannot, by reason."""
    kept: list[ScoredRollout] = []
    left_out: Counter[str] = Counter()
    for scored in rollouts:
        rollout = scored.rollout
        if reason := unreadable(rollout.prompt_token_ids, rollout.token_ids, vocabulary, context):
            left_out[reason] += 1
        elif len(rollout.logprobs) != len(rollout.token_ids) or not all(map(math.isfinite, rollout.logprobs)):
            left_out["logprobs"] += 1
        elif not (rollout.temperature > 0 and math.isfinite(rollout.temperature)):
            left_out["greedy"] += 1
        elif not math.isfinite(scored.score):
            left_out["score"] += 1
        else:
            kept.append(scored)
    return kept, left_out


def usable_labels(
    labelled: Iterable[LabelledAnswer], *, vocabulary: int, context: int
) -> tuple[list[LabelledAnswer], Counter[str]]:
    """The same for labelled answers; none where all that is left has one label."""
    kept: list[LabelledAnswer] = []
    left_out: Counter[str] = Counter()
    for item in labelled:
        if reason := unreadable(item.prompt_token_ids, item.token_ids, vocabulary, context):
            left_out[reason] += 1
        else:
            kept.append(item)
    if len({item.desirable for item in kept}) == 1:
        left_out["one_kind"] += len(kept)
        kept = []
    return kept, left_out


def in_company(rollouts: Sequence[ScoredRollout]) -> tuple[list[ScoredRollout], Counter[str]]:
    """Those of prompts that two or more of them answer."""
    members = groups(scored.rollout.prompt_token_ids for scored in rollouts)
    kept = [rollouts[row] for row in sorted(row for rows in members if len(rows) > 1 for row in rows)]
    return kept, Counter({"alone": len(rollouts) - len(kept)} if len(kept) < len(rollouts) else {})


def groups(prompts: Iterable[Hashable]) -> list[list[int]]:
    """Rows of the same prompt, in the order in which the prompts first come."""
    found: defaultdict[Hashable, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        found[prompt].append(row)
    return list(found.values())


def unreadable(prompt: Sequence[int], answer: Sequence[int], vocabulary: int, context: int) -> str:
    """Why a model of this vocabulary and context cannot read the pair; "" if it can."""
    if not prompt or not answer:
        return "empty"
    if not all(0 <= token < vocabulary for token in (*prompt, *answer)):
        return "vocabulary"
    return "context" if len(answer) >= context else ""
