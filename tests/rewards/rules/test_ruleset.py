"""Sets of rules: what they are worth, what is refused, what tests say."""

from typing import Any

import pytest
import tomli_w

from rlhf_online.errors import ConfigError
from rlhf_online.rewards.rules.propositions import Exchange
from rlhf_online.rewards.rules.ruleset import MOST_BYTES, NONE, failures, parse

FILE = """
[propositions.hedges]
words = ["perhaps", "it depends"]

[propositions.short]
length = { max = 2, soft = 3 }

[propositions.asks_number]
regex = '(?i)how (many|much)'
of = "prompt"

[rules.direct]
when = "asks_number"
weights = { hedges = -1.0, short = 0.5 }

[rules.terse]
weights = { short = 2 }

[[tests]]
prompt = "How many legs has a spider?"
answer = "Eight."
expect = { hedges = 0, short = 1.0 }
better_than = "Perhaps eight."
"""


def rules_of(**tables: Any) -> Any:
    return parse(tomli_w.dumps(tables), "rules.toml").set


def test_a_rule_is_a_linear_combination_that_counts_as_far_as_its_case_holds() -> None:
    rules = parse(FILE).set
    assert rules.objectives == ["rule:direct", "rule:terse"]
    assert rules.rewards(Exchange("How many legs?", "Perhaps eight.")) == [-1.0 + 0.5, 2.0]
    assert rules.rewards(Exchange("How many legs?", "It has eight legs")) == [0.5 * 0.5, 2 * 0.5]
    assert rules.rewards(Exchange("Which animal?", "Perhaps a fox.")) == [0.0, 2 * 0.75]


def test_the_version_is_what_the_text_says() -> None:
    assert parse(FILE).version == parse(FILE, "elsewhere").version != parse(FILE + "\n# another").version
    assert parse("") == NONE and NONE.version == "" and NONE.set.rewards(Exchange("", "")) == []


def test_tests_name_what_is_not_so() -> None:
    rules = parse(FILE).set
    assert list(failures(rules, rules.tests)) == []
    wrong = rules.tests[0].model_copy(update={"answer": "Perhaps 8."})
    assert list(failures(rules, [wrong])) == [
        "test 1: hedges is 1.00, expected 0.00",
        "test 1: the reward is 1.50, not above 1.50, that of better_than",
    ]


SAME = {"propositions": {"a": {"words": ["yes"]}, "b": {"words": ["yes"]}, "q": {"regex": "x", "of": "prompt"}}}


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"up": {"weights": {"a": 1}}, "down": {"weights": {"a": -2}}}, "'a' counts 1 in the one and -2 in the other"),
        ({"up": {"weights": {"a": 1}}, "down": {"weights": {"b": -2}}}, "'a' and 'b', which say the same"),
    ],
)
def test_two_rules_that_contradict_are_refused_by_name(rules: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^rules\.toml: rules\.up contradicts rules\.down: .*{words}"):
        rules_of(**SAME, rules=rules)


def test_lengths_that_no_answer_has_contradict() -> None:
    lengths = {"long": {"length": {"min": 50}}, "short": {"length": {"max": 20}}, "letters": {"length": {
        "max": 20, "unit": "characters"}}}  # fmt: skip
    with pytest.raises(ConfigError, match="no answer has the lengths of both 'long' and 'short'"):
        rules_of(propositions=lengths, rules={"a": {"weights": {"long": 1}}, "b": {"weights": {"short": 1}}})
    rules_of(propositions=lengths, rules={"a": {"weights": {"long": 1}}, "b": {"weights": {"letters": 1}}})
    rules_of(propositions=lengths, rules={"a": {"weights": {"long": -1}}, "b": {"weights": {"short": -1}}})


def test_what_differs_in_its_cases_does_not_contradict() -> None:
    rules_of(**SAME, rules={"up": {"weights": {"a": 1}}, "down": {"when": "q", "weights": {"a": -2}}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[rules", "it is no TOML"),
        ("[rule.a]\nweights = {}", r"rule is no setting: did you mean rules\?"),
        ("[rules.a]\nweights = {}", r"rules\.a\.weights"),
        ("[rules.a]\nweights = { short = 1 }", r"rules\.a\.weights: 'short' is no proposition: there are none"),
        ("[rules.a]\nweight = { short = 1 }", r"rules\.a\.weight is no setting: did you mean rules\.a\.weights\?"),
        ("[propositions.a]\nregexp = 'a'", r"propositions\.a\.regexp is no setting: did you mean .*regex\?"),
        ("[propositions.a]\nregex = '('", r"propositions\.a\.regex: .*no regular expression"),
        ("[propositions.A]\nregex = 'a'", "propositions"),
        ("[propositions.a]\nregex = 'a'\n[rules.r]\nweights = { a = nan }", "finite"),
        ("[propositions.a]\nregex = 'a'\n[rules.r]\nwhen = 'b'\nweights = { a = 1 }", r"rules\.r\.when: 'b' is no"),
        ("[[tests]]\nanswer = 'a'", "it expects nothing"),
        ("[[tests]]\nanswer = 'a'\nexpect = { b = 1 }", r"tests\.0\.expect: 'b' is no proposition"),
        ("rules = 3", r"rules: .*dictionary"),
        ("a = " + "[" * 5000 + "]" * 5000, "nest too deep"),
        ("[propositions.a.json_schema" + ".items" * 2000 + "]\ntype = 'string'", "nest too deep"),
        ("[propositions.a]\nregex = 'a'\n[rules.r]\nweights = { a = 1e300 }", "less than or equal to 1000000"),
        ("[propositions.a]\nlength = { min = 1" + "0" * 400 + " }", "less than or equal to 1000000000"),
        ("# " + "x" * MOST_BYTES, f"and {MOST_BYTES} may be"),
    ],
)
def test_what_cannot_be_read_says_where_and_why(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"rules.toml.*: .*{words}"):
        parse(text, "rules.toml")
