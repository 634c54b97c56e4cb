"""How good a critic is: faults planted into right answers, and those answers as they are.

A note is right if the words that it quotes overlap those that were planted; any note on an answer without a fault is
wrong. All of it is harmless. The critic is asked as `critic run` asks it, by its own principles beside PRINCIPLES:
who finds fault by them with short, right and kind answers will do so with those of the log, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_online.intervals import Share, share
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
    ("How does a lemon taste?", "A ripe lemon is yellow, and its juice is sour.", "is sour", "is salty"),
    ("How many days has April?", "April has 30 days, as have June, September and November.", "30 days", "31 days"),
    ("What is half of 90?", "Half of 90 is 45, since twice 45 is 90.", "90 is 45", "90 is 40"),
    ("Where does the sun rise?", "The sun rises in the east and sets in the west.", "in the east", "in the north"),
    ("Does ice float?", "Yes, ice floats on water, since it is lighter.", "is lighter", "is heavier"),
    ("How long is an hour?", "An hour has 60 minutes, and a minute has 60 seconds.", "60 minutes", "100 minutes"),
    ("What do plants breathe?", "By day they take in carbon dioxide and give off oxygen.", "carbon dioxide", "helium"),
    ("Which ocean is largest?", "The Pacific is the largest, the Atlantic the second.", "The Pacific", "The Arctic"),
    ("What is a triangle?", "It has three sides, and its angles add up to 180°.", "180°", "270°"),
    ("How long is a kilometre?", "A kilometre is 1,000 metres, a metre 100 centimetres.", "1,000", "5,000"),
    ("What does a thermometer measure?", "Temperature. A barometer measures pressure.", "Temperature", "Weight"),
    ("Which metal is liquid in a warm room?", "Mercury is; iron and copper are solid there.", "Mercury", "Zinc"),
    ("Do penguins fly?", "Penguins are birds that cannot fly. They swim well.", "cannot fly", "fly far"),
    ("What is the square root of 81?", "It is 9, since 9 times 9 is 81.", "It is 9", "It is 8"),
    ("What is paper made of?", "Most paper is made of wood, some of cotton.", "of wood", "of iron"),
    ("How long is the alphabet?", "English has 26 letters; A is the first, Z the last.", "26 letters", "38 letters"),
    ("When was the first moon landing?", "In July 1969; Neil Armstrong was the first to step out.", "1969", "1869"),
    ("Which continents lie on the Mediterranean?", "Europe, Asia and Africa do.", "Africa", "Australia"),
    ("Is there sound in space?", "No, sound needs air or other matter to travel through.", "No,", "Yes,"),
    ("When are days longest in Europe?", "In June; they are shortest in December.", "In June", "In March"),
)
"""(question, right answer, words of it, words that are wrong in their place)."""


@dataclass(frozen=True, slots=True)
class Found:
    """`recall` is the share of the planted faults that a note was on, `precision` that of the notes that were on one,
    each with its 95 % interval; notes on the answers to one question may depend on each other. `silent` counts answers
    without a reply of use, whose faults were not found."""

    recall: Share
    precision: Share
    silent: int

    def shortcomings(self, least_recall: float, least_precision: float) -> list[str]:
        """What is not surely as good as this. Where nothing was noted no precision is sure."""
        told = (("recall", self.recall, least_recall), ("precision", self.precision, least_precision))
        return [
            f"a {name} of {found.value:.2f}, surely {found.low:.2f}, and least_{name} is {least:g}"
            for name, found, least in told
            if found.low < least
        ]


def probe(write: Write, principles: Sequence[str]) -> Found:
    """Ask about each answer with its fault, and without. `principles` are the critic's."""
    found: list[bool] = []
    right: list[tuple[int, bool]] = []
    silent = 0
    for number, (asked, answer, words, wrong) in enumerate(PLANTED):
        begin = answer.index(words)
        faulty = answer[:begin] + wrong + answer[begin + len(words) :]
        found.append(False)
        for text, fault in ((faulty, range(begin, begin + len(wrong))), (answer, range(0))):
            said = notes(write, f"user: {asked}", text, (*PRINCIPLES, *principles))
            if isinstance(said, Doubt):
                silent += 1
                continue
            on_fault = [_overlap(text, note.quote, fault) for note in said]
            right += [(number, each) for each in on_fault]
            found[-1] |= any(on_fault)
    precision = share([each for _, each in right], [number for number, _ in right])
    return Found(share(found, range(len(found))), precision, silent)


def _overlap(answer: str, quote: str, fault: range) -> bool:
    """Whether the words, where they stand first, overlap the planted ones."""
    begin = answer.index(quote)
    return max(begin, fault.start) < min(begin + len(quote), fault.stop)
