"""Critics by a script."""

import json
from collections.abc import Collection

from rlhf_online.rewards.critic.planted import PLANTED
from rlhf_online.rewards.judge.verdicts import Messages


def answer_in(messages: Messages) -> str:
    """The answer that a critic is asked about."""
    said = messages[1]["content"].split(" ANSWER\n")[1]
    return said[: said.rindex("\n")]


def quoting(*words: str) -> str:
    """A reply that finds fault with these words."""
    return json.dumps([{"quote": each, "fault": "that is wrong"} for each in words])


def knowing(messages: Messages, of: Collection[str] = frozenset(wrong for *_, wrong in PLANTED)) -> str:
    """Quotes what was planted, where it was, if it is one `of` these."""
    answer = answer_in(messages)
    return quoting(
        *(wrong for _, right, words, wrong in PLANTED if wrong in of and right.replace(words, wrong) == answer)
    )
