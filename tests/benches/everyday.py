"""Everyday questions to a chat model, a known utility of its answers, and simulated people who vote by it.

Utility: VADER's compound sentiment (−1 … 1), −.02 for each word beyond 25, +.3 for an answer that ended by itself, so
that short and friendly is liked. The prompts that are measured on and those that are voted on share neither wording nor
topic.
"""

import math
import random
from collections.abc import Sequence
from typing import Any

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from rlhf_online.simulation.people import plackett_luce

FREE_WORDS, WORD_COST, ENDED = 25, 0.02, 0.3
TEMPERATURE = 0.25
"""Of the people's choices: P(a over b) = σ((u(a) − u(b)) / TEMPERATURE), in a ranking too."""
THUMB_LEVEL = 0.4
"""Utility at which a thumb goes up as often as down."""

HELD_OUT = (
    "How was your weekend?",
    "Can you recommend a movie for tonight?",
    "I just got a new puppy.",
    "What should I cook for my parents?",
    "I failed my driving test.",
    "Do you think it will rain tomorrow?",
    "My sister is getting married!",
    "I cannot fall asleep.",
    "What is a good name for a cat?",
    "How do I say sorry to a friend?",
    "I have a job interview on Monday.",
    "Tell me something nice.",
    "Why is the sky blue?",
    "My neighbour plays loud music.",
    "I feel a bit lonely today.",
    "What can I do on a rainy day?",
    "I finished my first marathon.",
    "How can I make my office cosier?",
    "Is it hard to learn the guitar?",
    "I lost my wallet on the bus.",
    "What is your favourite season?",
    "How do I get a stain out of a shirt?",
    "I want to start reading more.",
    "Should I get bangs?",
    "We are moving to another city.",
    "My plants keep dying.",
    "What do I write in a birthday card?",
    "I am nervous about flying.",
    "How much water should I drink?",
    "Thank you for your help yesterday.",
)

TOPICS = (
    *("breakfast", "jogging", "gardening", "the beach", "my bicycle", "coffee", "chess", "camping", "painting", "soup"),
    *(
        "winter boots",
        "a picnic",
        "my homework",
        "board games",
        "the dentist",
        "yoga",
        "bread",
        "the museum",
        "my garage",
    ),
    *("a road trip", "swimming", "tea", "photography", "a new phone", "the gym", "knitting", "trains", "pancakes"),
)
TEMPLATES = (
    "Tell me about {}.",
    "Do you like {}?",
    "Give me one tip about {}.",
    "I am thinking about {} today.",
    "What is the best thing about {}?",
    "I had trouble with {} this morning.",
)
VOTED_ON = tuple(template.format(topic) for topic in TOPICS for template in TEMPLATES)


class Utility:
    """What the simulated people like."""

    def __init__(self) -> None:
        self._sentiment = SentimentIntensityAnalyzer()

    def __call__(self, text: str, ended: bool) -> float:
        compound = self._sentiment.polarity_scores(text)["compound"]
        return compound - WORD_COST * max(0, len(text.split()) - FREE_WORDS) + ENDED * ended


def vote(utilities: Sequence[float], refs: Sequence[dict[str, Any]], dice: random.Random) -> dict[str, Any]:
    """A feedback body: a thumb for one answer, a ranking of several. Noisy, by the utilities."""
    if len(utilities) > 1:
        return {"ranking": {"tiers": [[refs[index]] for index in plackett_luce(utilities, TEMPERATURE, dice)]}}
    return {"thumb": {"answer": refs[0], "up": dice.random() < _sigmoid((utilities[0] - THUMB_LEVEL) / TEMPERATURE)}}


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, x))))
