"""Evidence for the gate, written by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_online.gate.check import AnswerSet, Evidence, Tokens

WORD = 9
OPEN: dict[str, dict[str, float]] = {
    "repetition": {"max_rise": 1.0},
    "distinct": {"min_ratio": 0.0},
    "entropy": {"min_ratio": 0.0, "max_ratio": 1000.0},
    "non_answers": {"max_rise": 1.0},
    "traits": {"answers": 8, "max_effect": 1000.0, "max_rise": 1.0},
}
"""Settings of the checks of answers for models that know next to nothing, and whose candidates are to be promoted."""


def answers(
    scores: Sequence[float],
    lengths: Sequence[int] | None = None,
    *,
    texts: Sequence[str] | None = None,
    spreads: Sequence[float] | None = None,
    logprobs: Sequence[float] | None = None,
    held_back: Sequence[float] = (),
    finished: Sequence[bool] | None = None,
    token_ids: Sequence[Tokens] | None = None,
) -> AnswerSet:
    """An answer for each score, which ended by itself: four tokens long, the text "w9 w10 w11 w12", its heads of one
    mind, unless told."""
    count = len(scores)
    token_ids = token_ids or [tuple(range(WORD, WORD + length)) for length in lengths or [4] * count]
    return AnswerSet(
        token_ids=token_ids,
        texts=texts or [" ".join(f"w{token}" for token in ids) for ids in token_ids],
        scores=scores,
        spreads=spreads or [0.0] * count,
        logprobs=logprobs or [-1.0] * count,
        held_back=held_back,
        held_back_spreads=[0.0] * len(held_back),
        finished=finished or [True] * count,
    )


def evidence_of(
    candidate: AnswerSet,
    live: AnswerSet,
    *,
    kl: float = 1.0,
    reward_model: Mapping[str, float] | None = None,
    held_back_model: Mapping[str, float] | None = None,
    prompt_texts: Sequence[str] | None = None,
    **more: Any,
) -> Evidence:
    """Prompts (10,), (11,), … of one word each."""
    count = len(candidate.scores)
    return Evidence(
        prompts=[(10 + row,) for row in range(count)],
        prompt_texts=prompt_texts or [f"w{10 + row}" for row in range(count)],
        candidate=candidate,
        live=live,
        kl=kl,
        reward_model=reward_model or {},
        held_back_model=held_back_model or {},
        **more,
    )
