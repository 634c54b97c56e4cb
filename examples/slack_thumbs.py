"""A bot's thumbs: reactions to its messages become votes, a reaction taken away withdraws its vote.

It is fed events as Slack's Events API sends them, one JSON object a line; a real bot calls `on_reaction` from its
framework. What it remembers, an answer for each message and a vote for each reaction, belongs into its database.

    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=… python examples/slack_thumbs.py < events.jsonl
"""

import json
import sys
from typing import Any

from openai import OpenAI

from rlhf_online.client import Answer, Feedback, Vote

THUMBS = {"+1": True, "-1": False}
client = OpenAI()
feedback = Feedback.beside(client)
answers: dict[str, Answer] = {}
votes: dict[tuple[str, str, str], Vote] = {}


def on_message(event: dict[str, Any]) -> None:
    """Somebody says something to the bot: `ts` names the message, and the bot's answer to it."""
    reply = client.chat.completions.create(
        model="rlhf-online", messages=[{"role": "user", "content": event["text"]}], user=event["user"]
    )
    answers[event["ts"]] = Answer(reply.id)
    print(reply.choices[0].message.content)


def on_reaction(event: dict[str, Any]) -> None:
    answer, up = answers.get(event["item"]["ts"]), THUMBS.get(event["reaction"])
    if answer is None or up is None:
        return
    reaction = (event["item"]["ts"], event["user"], event["reaction"])
    if event["type"] == "reaction_added":
        votes[reaction] = feedback.thumb(answer, up=up, user=event["user"], source="slack")
    elif vote := votes.pop(reaction, None):
        feedback.withdraw(vote, user=event["user"], source="slack")


for line in sys.stdin:
    event = json.loads(line)
    (on_message if event["type"] == "message" else on_reaction)(event)
