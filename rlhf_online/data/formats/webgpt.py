"""WebGPT's comparisons (Nakano et al. 2021, arXiv 2112.09332): a question and two answers, with a score each from −1
to 1 that sum to 0. Scores of 0 are a tie."""

from collections.abc import Iterator

from rlhf_online.data import fields
from rlhf_online.data.rows import TIED, Judgement, Message, Row
from rlhf_online.errors import RowRefused

FIELDS = frozenset(
    ("question", "quotes_0", "answer_0", "tokens_0", "score_0", "quotes_1", "answer_1", "tokens_1", "score_1")
)


def read(row: fields.Values) -> Iterator[Row]:
    """Raises RowRefused."""
    question = fields.mapping(row.get("question"), "'question'")
    answers = fields.text(row, "answer_0"), fields.text(row, "answer_1")
    if answers[0].strip() == answers[1].strip():
        raise RowRefused("equal", "both answers are the same")
    score, other = (fields.number(row.get(name)) for name in ("score_0", "score_1"))
    if score is None or other is None:
        raise RowRefused("no_vote", "expected the numbers 'score_0' and 'score_1'")
    tiers = TIED if score == other else ((0,), (1,)) if score > other else ((1,), (0,))
    yield Row(
        messages=fields.prompt((Message(role="user", content=fields.text(question, "full_text")),)),
        answers=answers,
        judgements=(Judgement(tiers=tiers),),
        id=fields.name_of(question, "id"),
        other={"dataset": question.get("dataset"), "scores": [score, other]},
    )
