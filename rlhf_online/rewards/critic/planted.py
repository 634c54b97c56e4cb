"""How good a critic is: faults planted into right answers, and those answers as they are.

A note is right if the words that it quotes overlap those that were planted; any note on an answer without a fault is
wrong. All of it is harmless.
"""

from dataclasses import dataclass

from rlhf_online.rewards.critic.notes import Write, notes
from rlhf_online.rewards.judge.verdicts import Doubt

PRINCIPLES = ("What the answer says is correct.", "The answer's sums and units are right.")
PLANTED = (
    ("What is the capital of France?", "Paris is the capital. It lies on the Seine.", "the Seine", "the Danube"),
    ("How many legs has a spider?", "A spider has eight legs, and an insect has six.", "eight legs", "ten legs"),
    ("What is 12 times 12?", "12 times 12 is 144, which is a dozen dozens.", "144", "148"),
    ("When does water boil?", "At sea level water boils at 100 °C and freezes at 0 °C.", "100 °C", "40 °C"),
    ("Is a whale a fish?", "No, a whale is a mammal. It breathes air with lungs.", "with lungs", "with gills"),
    ("What do bees make?", "Bees make honey from nectar, and build combs of wax.", "of wax", "of clay"),
    ("How long is a leap year?", "A leap year has 366 days; February has 29 then.", "366 days", "364 days"),
    ("What is the opposite of north?", "South. A compass needle points north and south.", "South.", "East."),
    ("How is bread made?", "Mix flour, water and yeast, let it rise, and bake it.", "bake it", "freeze it"),
    ("Which planet is nearest to the sun?", "Mercury is nearest to the sun, then Venus.", "Mercury", "Neptune"),
)
"""(question, right answer, words of it, words that are wrong in their place)."""


@dataclass(frozen=True, slots=True)
class Found:
    """Of PLANTED: faults that a note was on; all notes, and those on such a fault; answers without a reply of use."""

    found: int
    notes: int
    right: int
    silent: int

    @property
    def recall(self) -> float:
        return self.found / len(PLANTED)

    @property
    def precision(self) -> float:
        """1 where nothing was noted."""
        return self.right / self.notes if self.notes else 1.0


def probe(write: Write) -> Found:
    """Ask about each answer with its fault, and without."""
    found = noted = right = silent = 0
    for asked, answer, words, wrong in PLANTED:
        begin = answer.index(words)
        faulty = answer[:begin] + wrong + answer[begin + len(words) :]
        for text, fault in ((faulty, range(begin, begin + len(wrong))), (answer, range(0))):
            said = notes(write, f"user: {asked}", text, PRINCIPLES)
            if isinstance(said, Doubt):
                silent += 1
                continue
            on_fault = sum(_overlap(text, note.quote, fault) for note in said)
            noted, right, found = noted + len(said), right + on_fault, found + (on_fault > 0)
    return Found(found, noted, right, silent)


def _overlap(answer: str, quote: str, fault: range) -> bool:
    """Whether the words, where they stand first, overlap the planted ones."""
    begin = answer.index(quote)
    return max(begin, fault.start) < min(begin + len(quote), fault.stop)
