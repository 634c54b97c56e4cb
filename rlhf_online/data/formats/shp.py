"""Stanford Human Preferences (Ethayarajh et al. 2022): a post and two comments, of which readers liked one more.

`labels` is 1 where `human_ref_A` is the better one, 0 where `human_ref_B` is.
"""

from collections.abc import Iterator

from rlhf_online.data import fields
from rlhf_online.data.rows import Judgement, Message, Row
from rlhf_online.errors import RowRefused

KEPT = ("domain", "upvote_ratio", "score_A", "score_B", "score_ratio", "seconds_difference")
IDS = ("post_id", "c_root_id_A", "c_root_id_B")
TIMES = ("created_at_utc_A", "created_at_utc_B")
FIELDS = frozenset(("history", "human_ref_A", "human_ref_B", "labels", *IDS, *TIMES, *KEPT))


def read(row: fields.Values) -> Iterator[Row]:
    """Raises RowRefused."""
    answers = fields.text(row, "human_ref_A"), fields.text(row, "human_ref_B")
    if answers[0].strip() == answers[1].strip():
        raise RowRefused("equal", "both comments are the same")
    if (label := row.get("labels")) not in (0, 1):
        raise RowRefused("no_vote", f"'labels' is {label!r}, expected 0 or 1")
    later = max(fields.milliseconds(row.get(name)) for name in TIMES)
    yield Row(
        messages=fields.prompt((Message(role="user", content=fields.text(row, "history")),)),
        answers=answers,
        judgements=(Judgement(tiers=((0,), (1,)) if label else ((1,), (0,)), at_ms=later),),
        id="/".join(filter(None, (fields.name_of(row, name) for name in IDS))),
        at_ms=later,
        other={name: row[name] for name in KEPT if name in row},
    )
