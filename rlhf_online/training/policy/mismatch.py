"""How far what answers were sampled with is from what the trainer makes of them, by the version that wrote them.

Of the live version's answers that is where engine and trainer compute differently; of older ones also what the policy
has learned since.

Shapes: N answers, A tokens of the longest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from rlhf_online.algorithms import importance, kl
from rlhf_online.algorithms.masked import masked_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """Means over `tokens`: k3 in nats, and the share whose ratio is `importance.outside`."""

    tokens: int
    k3: float
    outside: float


def by_version(
    logprobs_NA: Tensor, behaviour_NA: Tensor, mask_NA: Tensor, versions_N: Sequence[str]
) -> dict[str, Mismatch]:
    """Of each version's answers. `behaviour_NA` are the log-probs that they were sampled with."""
    k3_NA = kl.k3(behaviour_NA, logprobs_NA)
    outside_NA = importance.outside(logprobs_NA, behaviour_NA).float()
    rows_of = {version: [row for row, by in enumerate(versions_N) if by == version] for version in versions_N}
    return {
        version: Mismatch(
            tokens=int(mask_NA[rows].sum()),
            k3=masked_mean(k3_NA[rows], mask_NA[rows]).item(),
            outside=masked_mean(outside_NA[rows], mask_NA[rows]).item(),
        )
        for version, rows in rows_of.items()
    }


def together(found: Iterable[Mismatch]) -> Mismatch | None:
    """As one, each weighed by its tokens; None of none."""
    each = [item for item in found if item.tokens]
    tokens = sum(item.tokens for item in each)
    if not tokens:
        return None
    return Mismatch(
        tokens=tokens,
        k3=sum(item.tokens * item.k3 for item in each) / tokens,
        outside=sum(item.tokens * item.outside for item in each) / tokens,
    )
