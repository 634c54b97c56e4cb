"""The weights of a rule, fitted to answers of which one is known to be better.

Hinge ranking loss of rule-based rewards (Mu et al. 2024, arXiv 2411.01111, section 4.4), with a weight decay as there:

    min_w  λ/2 ‖w‖² + mean_i max(0, 1 − (s_i + w·d_i))

d_i is the difference of the two answers' features, s_i that of their reward model's scores where these are known (then
the fitted reward corrects the score as far as it must; without them it orders the answers by itself). Convex: solved by
coordinate ascent on the dual (Hsieh et al. 2008), until the duality gap is below TOLERANCE. The same examples give the
same weights; nothing is drawn.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import mul
from pathlib import Path
from typing import Any

from rlhf_online.errors import InvalidInput
from rlhf_online.rewards.rules.propositions import Exchange
from rlhf_online.rewards.rules.ruleset import RuleSet, reward

DECAY = 0.01
"""λ."""
TOLERANCE = 1e-10
"""Of the loss: weights are then within .00015 of the best."""
MOST_PASSES = 1000


@dataclass(frozen=True, slots=True)
class Ordered:
    """Two answers to one prompt, the first one better; `lead` is by how much its reward model's score is higher."""

    better: Exchange
    worse: Exchange
    lead: float = 0.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """The weights, and of how many examples: the mean hinge loss and the share ordered rightly, before and after."""

    weights: dict[str, float]
    examples: int
    loss: tuple[float, float]
    ordered: tuple[float, float]


def read_examples(path: Path) -> list[Ordered]:
    """Of JSON Lines {"prompt": …, "chosen": …, "rejected": …}, and if known "scores": [chosen's, rejected's].

    Texts, or TRL's lists of messages. Raises InvalidInput, naming the line.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(_ordered(json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise InvalidInput(f"{path}, line {number}: {error}") from error
    if not found:
        raise InvalidInput(f"{path} holds no examples: a line is {{'prompt': …, 'chosen': …, 'rejected': …}}")
    return found


def _ordered(row: Any) -> Ordered:
    """Raises ValueError."""
    needed = ("prompt", "chosen", "rejected")
    if not isinstance(row, dict) or set(row) - {"scores"} != set(needed):
        got = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"expected the keys {', '.join(needed)} and perhaps scores, got {got}")
    prompt, better, worse = (_text(name, row[name]) for name in needed)
    scores = row.get("scores", [0.0, 0.0])
    if not isinstance(scores, list) or len(scores) != 2 or not all(map(_is_number, scores)):
        raise ValueError(f"scores: expected two numbers, the chosen answer's first, got {scores!r}")
    return Ordered(Exchange(prompt, better), Exchange(prompt, worse), scores[0] - scores[1])


def _text(name: str, value: Any) -> str:
    said = [{"content": value}] if isinstance(value, str) else value
    if isinstance(said, list) and said:
        texts = [turn.get("content") if isinstance(turn, dict) else None for turn in said]
        if all(isinstance(text, str) for text in texts):
            return "\n".join(map(str, texts))
    raise ValueError(f"{name}: expected a text, or a list of messages with a text each")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def fit(rules: RuleSet, name: str, examples: Sequence[Ordered]) -> Fitted:
    """New weights for the propositions of the rule `name`. Raises InvalidInput where they tell no two answers apart."""
    rule = rules.rules.get(name)
    if rule is None:
        raise InvalidInput(f"{name!r} is no rule: there are {', '.join(rules.rules) or 'none'}")
    names = list(rule.weights)
    singly = [rule.model_copy(update={"weights": {each: 1.0}}) for each in names]

    def parts(exchange: Exchange) -> list[float]:
        features = rules.features(exchange)
        return [reward(alone, features) for alone in singly]

    differences = [[a - b for a, b in zip(parts(item.better), parts(item.worse), strict=True)] for item in examples]
    if not any(map(any, differences)):
        raise InvalidInput(
            f"rules.{name}: its propositions say the same of both answers in all {len(examples)} examples: nothing can "
            "be fitted"
        )
    leads = [item.lead for item in examples]
    found = hinge(differences, leads)
    before, after = (
        [lead + math.fsum(map(mul, weights, each)) for lead, each in zip(leads, differences, strict=True)]
        for weights in (list(rule.weights.values()), found)
    )
    return Fitted(
        weights={each: round(weight, 3) for each, weight in zip(names, found, strict=True)},
        examples=len(examples),
        loss=(_mean_hinge(before), _mean_hinge(after)),
        ordered=(_share(before), _share(after)),
    )


def hinge(differences: Sequence[Sequence[float]], leads: Sequence[float], decay: float = DECAY) -> list[float]:
    """The weights that minimise the module's loss: N differences of P features, N leads → P weights.

    Dual: α_i in [0, 1/(λN)], w = Σ α_i d_i; one pass sets each α_i to the best value with the others held.
    """
    n, width = len(differences), len(differences[0])
    most = 1 / (decay * n)
    alphas, weights = [0.0] * n, [0.0] * width
    squares = [math.fsum(map(mul, each, each)) for each in differences]
    for _ in range(MOST_PASSES):
        for i, (each, square) in enumerate(zip(differences, squares, strict=True)):
            if square:
                slack = 1 - leads[i] - math.fsum(map(mul, weights, each))
                step = min(max(alphas[i] + slack / square, 0.0), most) - alphas[i]
                alphas[i] += step
                weights = [weight + step * value for weight, value in zip(weights, each, strict=True)]
        if _gap(differences, leads, alphas, weights, decay) < TOLERANCE:
            break
    return weights


def _gap(
    differences: Sequence[Sequence[float]],
    leads: Sequence[float],
    alphas: Sequence[float],
    weights: Sequence[float],
    decay: float,
) -> float:
    """Primal less dual: how far the loss is from its least at most. What no feature tells apart is the same in both."""
    told = [i for i, each in enumerate(differences) if any(each)]
    n, norm = len(differences), math.fsum(map(mul, weights, weights))
    margins = [leads[i] + math.fsum(map(mul, weights, differences[i])) for i in told]
    primal = decay / 2 * norm + math.fsum(max(0.0, 1 - margin) for margin in margins) / n
    dual = decay * (math.fsum(alphas[i] * (1 - leads[i]) for i in told) - norm / 2)
    return primal - dual


def _mean_hinge(margins: Sequence[float]) -> float:
    return math.fsum(max(0.0, 1 - margin) for margin in margins) / len(margins)


def _share(margins: Sequence[float]) -> float:
    """Ordered rightly; a tie is half of one."""
    return math.fsum((margin > 0) + 0.5 * (margin == 0) for margin in margins) / len(margins)


def lines(name: str, fitted: Fitted) -> Iterator[str]:
    """As TOML to put into the file."""
    yield f"[rules.{name}]"
    yield f"weights = {{ {', '.join(f'{each} = {weight}' for each, weight in fitted.weights.items())} }}"
