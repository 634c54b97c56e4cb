"""OpenAssistant's conversation trees (Köpf et al. 2023, arXiv 2304.07327): a row is a tree of messages, in which people
ranked the assistant's replies to each message (`rank`, 0 for the best). Replies of one rank are tied."""

from collections.abc import Iterator
from typing import Any

from rlhf_online.data import fields
from rlhf_online.data.rows import Judgement, Message, Row
from rlhf_online.errors import RowRefused

FIELDS = frozenset(("message_tree_id", "tree_state", "prompt", "origin"))


def read(row: fields.Values) -> Iterator[Row]:
    """A row for each message whose replies are ranked. Raises RowRefused for a tree without any."""
    if "parent_id" in row:
        raise RowRefused("shape", "a single message: import the file of trees (….trees.jsonl.gz)")
    tree = fields.name_of(row, "message_tree_id")
    found = [_ranked(tree, path, node, replies) for path, node, replies in _asked(fields.mapping(row.get("prompt")))]
    rows = [each for each in found if each is not None]
    if not rows:
        raise RowRefused("no_vote", "no message of the tree has two ranked replies of the assistant's")
    yield from rows


def _asked(root: fields.Values) -> Iterator[tuple[tuple[Message, ...], fields.Values, list[fields.Values]]]:
    """(the conversation up to it, the message, its replies) of each message of a person's."""
    waiting: list[tuple[tuple[Message, ...], fields.Values]] = [((), root)]
    while waiting:
        before, node = waiting.pop()
        if node.get("deleted"):
            continue
        said = fields.message({"role": node.get("role"), "content": node.get("text")}, "a message of the tree")
        path = (*before, said)
        given = fields.listed(node, "replies") if node.get("replies") else ()
        replies = [fields.mapping(each, "a reply") for each in given]
        if said.role == "user":
            yield path, node, replies
        waiting += [(path, reply) for reply in reversed(replies)]


def _ranked(tree: str, path: tuple[Message, ...], node: fields.Values, replies: list[fields.Values]) -> Row | None:
    """None where fewer than two replies are ranked."""
    ranked: list[tuple[int, fields.Values]] = []
    for reply in replies:
        rank: Any = reply.get("rank")
        if isinstance(rank, int) and not reply.get("deleted") and reply.get("role") in ("assistant", "bot"):
            ranked.append((rank, reply))
    if len({fields.text(reply, "text") for _, reply in ranked}) < 2:
        return None
    ranks = sorted({rank for rank, _ in ranked})
    tiers = tuple(tuple(at for at, (rank, _) in enumerate(ranked) if rank == tier) for tier in ranks)
    at_ms = max(fields.milliseconds(reply.get("created_date")) for _, reply in ranked)
    return Row(
        messages=fields.prompt(path),
        answers=tuple(fields.text(reply, "text") for _, reply in ranked),
        judgements=(Judgement(tiers=tiers, at_ms=at_ms),),
        conversation=tree,
        id=fields.name_of(node, "message_id"),
        at_ms=at_ms,
        other={"lang": node["lang"]} if "lang" in node else {},
    )
