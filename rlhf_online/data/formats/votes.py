"""What `data export --format votes` writes: a prompt, its answers, and one judgement of any kind, wholly."""

from collections.abc import Iterator

from rlhf_online.data import fields
from rlhf_online.data.rows import Row
from rlhf_online.errors import RowRefused

FIELDS = frozenset(("prompt", "answers", "tiers", "up", "correction", "tools"))


def read(row: fields.Values) -> Iterator[Row]:
    """Raises RowRefused."""
    answers = tuple(fields.listed(row, "answers"))
    if not answers or not all(isinstance(answer, str) for answer in answers):
        raise RowRefused("shape", "'answers': expected a list of texts")
    correction = fields.maybe_text(row, "correction")
    if row.get("tiers"):
        verdict = {"tiers": _tiers(row, len(answers)), "unsure": row.get("unsure") is True}
    elif correction or isinstance(row.get("up"), bool):
        verdict = {"up": None if correction else row["up"], "correction": correction}
    else:
        raise RowRefused("no_vote", "expected 'tiers', 'up' or a 'correction'")
    yield Row(
        messages=fields.prompt(fields.messages(row.get("prompt"), "prompt")),
        answers=answers,
        judgements=(fields.circumstanced(row, **verdict),),
        **fields.origin(row),
    )


def _tiers(row: fields.Values, count: int) -> tuple[tuple[int, ...], ...]:
    """Each answer in one tier."""
    tiers = fields.listed(row, "tiers")
    if not all(isinstance(tier, list) and tier and all(type(each) is int for each in tier) for tier in tiers):
        raise RowRefused("shape", "'tiers': expected a list of lists of numbers")
    found = tuple(tuple(tier) for tier in tiers)
    if sorted(index for tier in found for index in tier) != list(range(count)) or count < 2:
        raise RowRefused("shape", f"'tiers': expected each of the {count} answers once, by its number from 0")
    return found
