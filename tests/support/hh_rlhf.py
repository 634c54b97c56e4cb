"""Rows of the shape of HH-RLHF, written by nobody: random words, with every oddity of the real files in its real share.

The shares are counts of harmless-base's test file, 2,312 pairs; a file of as many pairs has exactly these.
"""

import json
import random
from collections import Counter
from pathlib import Path

REAL_PAIRS = 2312
TURNS = {2: 662, 4: 588, 6: 589, 8: 354, 10: 68, 12: 19, 14: 16, 16: 7, 18: 4, 20: 1, 22: 2, 24: 1, 36: 1}
"""Of the chosen side."""
TURNS_DIFFER, DOUBLED_TURN, EMPTY_CHOSEN, REPEATED_PROMPT = 5, 4, 4, 2
BLANK_LINE, MARK_INSIDE, NO_COLON, QUOTES, OTHER_LETTERS, EMOJI = 128, 40, 2, 1690, 16, 1
HUMAN, ASSISTANT = "\n\nHuman: ", "\n\nAssistant: "
TEXT = (
    "the a of to and in is that it for you with on as are this be have not but what can how your from about would "
    "garden kettle winter marble ticket ladder copper violet engine paper candle harbour meadow lantern pepper saddle"
)
WORDS = TEXT.split()


def rows(pairs: int = REAL_PAIRS, seed: int = 0) -> list[dict[str, str]]:
    """The pairs, oddities at random places."""
    rng = random.Random(seed)
    share = pairs / REAL_PAIRS
    turns = [count for count, times in TURNS.items() for _ in range(round(times * share))]
    turns = (turns + [2] * pairs)[:pairs]
    rng.shuffle(turns)
    made = [_pair(rng, count) for count in turns]
    places = iter(rng.sample(range(pairs), pairs))

    def some(real: int) -> list[int]:
        return [next(places) for _ in range(max(1, round(real * share)))]

    for at in some(TURNS_DIFFER):
        side = rng.choice((1, 2))
        made[at][side] += f"{ASSISTANT}{_words(rng, 8)}"
    for at in some(DOUBLED_TURN):
        made[at][0] += f"{ASSISTANT}{_words(rng, 8)}"
    for at in some(EMPTY_CHOSEN):
        made[at][1] = ""
    for at in some(REPEATED_PROMPT):
        made[at][0] = made[(at + 1) % pairs][0]
    for real, what in (
        (BLANK_LINE, "\n\nAnd then, "),
        (MARK_INSIDE, " as Human: or Assistant: said "),
        (NO_COLON, "\n\nHuman beings "),
        (OTHER_LETTERS, " naïve café – 上海 "),
        (EMOJI, " 🙂 "),
    ):
        for at in some(real):
            made[at][2] = f"{_words(rng, 3)}{what}{made[at][2]}"
    for at in rng.sample(range(pairs), min(pairs, round(QUOTES * share))):
        made[at][2] += " it’s “so”."
    return [{"chosen": f"{head}{ASSISTANT}{good}", "rejected": f"{head}{ASSISTANT}{bad}"} for head, good, bad in made]


def write(path: Path, found: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
    return path


def expected_notes(pairs: int = REAL_PAIRS) -> Counter[str]:
    """What an importer must have noticed."""
    odd = {"turns_differ": TURNS_DIFFER, "doubled_turn": DOUBLED_TURN, "empty_chosen": EMPTY_CHOSEN}
    return Counter({name: max(1, round(real * pairs / REAL_PAIRS)) for name, real in odd.items()})


def _pair(rng: random.Random, turns: int) -> list[str]:
    """Prompt, better answer, worse answer."""
    prompt = "".join(
        f"{ASSISTANT if turn % 2 else HUMAN}{_words(rng, rng.randint(8, 30))}" for turn in range(turns - 1)
    )
    return [prompt, _words(rng, rng.randint(5, 50)), _words(rng, rng.randint(5, 55))]


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))
