"""UltraFeedback (Cui et al. 2023, arXiv 2310.01377): an instruction and several models' answers, scored by GPT-4.

Answers are ranked by `fine-grained_score`, the mean over four aspects, where there is one: `overall_score` is known to
be ten times too large for some hundreds of answers. Those of one score are tied, and those without a score left out.
The binarised form, `chosen` and `rejected` as lists of messages, is TRL's; of equal scores it is a tie.
"""

from collections.abc import Iterator

from rlhf_online.data import fields
from rlhf_online.data.formats import trl
from rlhf_online.data.rows import Judgement, Message, Row
from rlhf_online.errors import RowRefused

FIELDS = frozenset(("instruction", "completions", "models", "source", "correct_answers", "incorrect_answers"))
BINARISED_FIELDS = trl.FIELDS | {"prompt_id", "messages", "score_chosen", "score_rejected", "source"}


def read(row: fields.Values) -> Iterator[Row]:
    """Raises RowRefused."""
    found: list[tuple[str, float, str]] = []
    for index, item in enumerate(fields.listed(row, "completions")):
        values = fields.mapping(item, f"completions[{index}]")
        score = fields.number(values.get("fine-grained_score", values.get("overall_score")))
        if score is not None:
            found.append((fields.text(values, "response"), score, fields.maybe_text(values, "model")))
    if len({text for text, *_ in found}) < 2:
        raise RowRefused("single", "fewer than two different answers with a score")
    scores = sorted({score for _, score, _ in found}, reverse=True)
    tiers = tuple(tuple(at for at, (_, score, _) in enumerate(found) if score == tier) for tier in scores)
    yield Row(
        messages=fields.prompt((Message(role="user", content=fields.text(row, "instruction")),)),
        answers=tuple(text for text, *_ in found),
        judgements=(Judgement(tiers=tiers, source="ai"),),
        other={
            "source": row.get("source"),
            "models": [model for *_, model in found],
            "scores": [s for _, s, _ in found],
        },
    )


def read_binarised(row: fields.Values) -> Iterator[Row]:
    """Raises RowRefused."""
    scores = [fields.number(row.get(name)) for name in ("score_chosen", "score_rejected")]
    tied = scores[0] is not None and scores[0] == scores[1]
    kept = {"score_chosen": scores[0], "score_rejected": scores[1], "source": row.get("source")}
    other = {name: value for name, value in kept.items() if value is not None}
    yield trl.pair(row, name=fields.name_of(row, "prompt_id"), source="ai", tied=tied, other=other)
