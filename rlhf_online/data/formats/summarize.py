"""OpenAI's summarise-from-feedback comparisons (Stiennon et al. 2020, arXiv 2009.01325): a post and two summaries, of
which `choice` (0 or 1) is the better one. The prompt is laid out as in the paper's table 5."""

from collections.abc import Iterator

from rlhf_online.data import fields
from rlhf_online.data.rows import Judgement, Message, Row
from rlhf_online.errors import RowRefused

FIELDS = frozenset(("info", "summaries", "choice", "worker", "batch", "split", "extra"))


def read(row: fields.Values) -> Iterator[Row]:
    """Raises RowRefused."""
    if "summaries" not in row and "summary" in row:
        raise RowRefused("score", "a summary rated by itself on scales of 1 to 7 (the subset axis): import comparisons")
    summaries = [fields.mapping(item, "a summary") for item in fields.listed(row, "summaries")]
    if len(summaries) != 2 or (choice := row.get("choice")) not in (0, 1):
        raise RowRefused("no_vote", "expected two 'summaries' and a 'choice' of 0 or 1")
    answers = tuple(fields.text(item, "text").strip() for item in summaries)
    if answers[0] == answers[1]:
        raise RowRefused("equal", "both summaries are the same")
    info = fields.mapping(row.get("info"), "'info'")
    extra = row.get("extra") or {}
    yield Row(
        messages=fields.prompt((Message(role="user", content=_prompt(info)),)),
        answers=answers,
        judgements=(Judgement(tiers=((choice,), (1 - choice,)), person=fields.maybe_text(row, "worker")),),
        id=fields.name_of(info, "id"),
        other={
            "models": [fields.maybe_text(item, "policy") for item in summaries],
            **{name: row[name] for name in ("batch", "split") if row.get(name)},
            **({"extra": extra} if extra else {}),
        },
    )


def _prompt(info: fields.Values) -> str:
    if info.get("article"):
        return f"{fields.text(info, 'article').strip()}\n\nTL;DR:"
    lines = [f"SUBREDDIT: r/{info['subreddit']}"] if info.get("subreddit") else []
    lines += [f"TITLE: {info['title']}"] if info.get("title") else []
    return "\n".join([*lines, f"POST: {fields.text(info, 'post').strip()}", "TL;DR:"])
