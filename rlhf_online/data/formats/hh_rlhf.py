"""Anthropic's HH-RLHF (Bai et al. 2022, arXiv 2204.05862): two transcripts, `chosen` and `rejected`.

A transcript is turns behind the marks "\\n\\nHuman:" and "\\n\\nAssistant:". The prompt is the longest list of turns
with which both begin, and what follows are the answers. That is not always what stands before the last mark: some
answers hold "\\n\\nAssistant:" themselves. An answer may be empty, also the preferred one.
"""

import re
from collections.abc import Iterator

from rlhf_online.data import fields
from rlhf_online.data.rows import BETTER_FIRST, Judgement, Message, Row
from rlhf_online.errors import RowRefused

FIELDS = frozenset(("chosen", "rejected"))

_MARK = re.compile(r"\n\n(Human|Assistant):")
_QUESTION, _ANSWER = "\n\nHuman:", "\n\nAssistant:"
_ROLES = {"Human": "user", "Assistant": "assistant"}
_PREFERRED = (Judgement(tiers=BETTER_FIRST),)

Turns = list[tuple[str, str]]


def read(row: fields.Values) -> Iterator[Row]:
    """Raises RowRefused."""
    sides = fields.text(row, "chosen"), fields.text(row, "rejected")
    at = sides[0].rfind(_ANSWER)
    if at > 0 and sides[1].rfind(_ANSWER) == at and sides[1].startswith(begin := sides[0][:at]) and _ends(*sides, at):
        # All but some in a thousand: the same turns before the last mark, and nothing but answers behind it.
        prompt = _turns(begin)
        answers = tuple([side[at + len(_ANSWER) :].removeprefix(" ") for side in sides])
        cut = False
    else:
        turns = [_turns(side) for side in sides]
        common = _common(*turns)
        prompt = turns[0][:common]
        answers = tuple([_rest(each[common:]) for each in turns])
        cut = len(turns[0]) != len(turns[1])
    if answers[0].strip() == answers[1].strip():
        raise RowRefused("equal", "chosen and rejected are the same")
    yield Row(
        messages=fields.prompt(tuple([Message(role=_ROLES[who], content=said) for who, said in prompt])),
        answers=answers,
        judgements=_PREFERRED,
        notes=_notes(answers, cut=cut, doubled=prompt[-1:] != [] and prompt[-1][0] == "Assistant"),
    )


def _ends(chosen: str, rejected: str, at: int) -> bool:
    """Whether nobody speaks behind that place."""
    return chosen.find(_QUESTION, at) < 0 and rejected.find(_QUESTION, at) < 0


def _turns(text: str) -> Turns:
    """Who speaks, and what is said without the one space behind the mark."""
    start, *pieces = _MARK.split(text)
    if start or not pieces:
        raise RowRefused("shape", "a transcript begins with '\\n\\nHuman:' or '\\n\\nAssistant:'")
    return [(who, said.removeprefix(" ")) for who, said in zip(pieces[::2], pieces[1::2], strict=True)]


def _common(chosen: Turns, rejected: Turns) -> int:
    """How many turns both begin with; the last turn of either is an answer, and none of them."""
    for place, (one, other) in enumerate(zip(chosen[:-1], rejected[:-1], strict=False)):
        if one != other:
            return place
    return min(len(chosen), len(rejected)) - 1


def _rest(turns: Turns) -> str:
    """The answer that the turns after the prompt are."""
    if any(who == "Human" for who, _ in turns):
        raise RowRefused("diverges", "the conversations differ before their last answers")
    return _ANSWER.join(said if place == 0 else f" {said}" for place, (_, said) in enumerate(turns))


def _notes(answers: tuple[str, ...], *, cut: bool, doubled: bool) -> tuple[str, ...]:
    """Words for what is odd about a pair."""
    if answers[0].strip() and answers[1].strip() and not cut and not doubled:
        return ()
    found = {"empty_chosen": not answers[0].strip(), "empty_rejected": not answers[1].strip()}
    found |= {"turns_differ": cut, "doubled_turn": doubled}
    return tuple(name for name, here in found.items() if here)
