"""`rlhf-online rules`: from a file to what is in force; every mistake is one sentence."""

import json
from pathlib import Path

import pytest

from rlhf_online.cli import main
from rlhf_online.rewards.rules import record
from rlhf_online.rewards.rules.ruleset import parse
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest

Captured = pytest.CaptureFixture[str]
FILE = """
[propositions.short]
length = { max = 3 }
[propositions.polite]
words = ["please"]
[propositions.unused]
finished = true
[rules.style]
weights = { short = 1.0, polite = -0.5 }
[[tests]]
answer = "zinc please"
expect = { polite = 1 }
better_than = "zinc and iron and so on"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Of services with a reward model."""
    root = tmp_path / "state"
    registry = open_registry(root / "versions")
    name = registry.reserve("reward")
    (registry.stage(name) / "reward.json").write_text(json.dumps({"objectives": ["helpful", "rule:kind"]}))
    registry.publish(Manifest(version=name, tuning="full"))
    registry.promote(name)
    return root


def test_a_file_is_checked_and_its_tests_are_asked(file: Path, capsys: Captured) -> None:
    assert main(["rules", "check", str(file)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{parse(FILE).version}: rule:style: 3 propositions, 1 tests"
    assert second == "propositions.unused is in no rule: it has no effect"
    assert main(["rules", "test", str(file)]) == 0
    file.write_text(FILE.replace("expect = { polite = 1 }", "expect = { polite = 0 }"))
    capsys.readouterr()
    assert main(["rules", "test", str(file)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "test 1: polite is 1.00, expected 0.00",
        "1 tests, 1 expectations failed",
    ]


def test_what_is_applied_is_shown_weighed_and_explained(file: Path, state: Path, capsys: Captured) -> None:
    folder = ["--state", str(state)]
    assert main(["rules", "show", *folder]) == 0
    assert capsys.readouterr().out == "# no rules\n"
    assert main(["rules", "apply", str(file), *folder]) == 0
    assert main(["rules", "apply", str(file), *folder]) == 0
    version = parse(FILE).version
    assert capsys.readouterr().out.splitlines() == [
        f"{version}: rule:style",
        f"{version}: rule:style, as before",
    ]
    assert main(["rules", "show", *folder]) == 0
    assert capsys.readouterr().out == f"# {version}: rule:style\n{FILE}"
    assert main(["reward-weights", "rule:style=2", *folder]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["helpful", "1"], ["rule:kind", "1"], ["rule:style", "2"]]
    assert main(["rules", "explain", "zinc please", *folder]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:4] == [
        ["style", "short", "1.00", "1", "+1.00"],
        ["style", "polite", "1.00", "-0.5", "-0.50"],
        ["rule:style", "+0.50"],
    ]
    assert main(["rules", "apply", "--none", *folder]) == 0
    assert main(["reward-weights", *folder]) == 0
    assert "rule:style" not in capsys.readouterr().out.partition("no rules")[2]


def test_weights_are_fitted_to_examples(file: Path, tmp_path: Path, capsys: Captured) -> None:
    rows = [
        {"prompt": "p", "chosen": "zinc please", "rejected": "zinc and a lot more"},
        {"prompt": "p", "chosen": "iron please", "rejected": "iron"},
    ]
    examples = tmp_path / "examples.jsonl"
    examples.write_text("\n".join(map(json.dumps, rows)))
    assert main(["rules", "fit", str(file), str(examples)]) == 0
    told, table, weights = capsys.readouterr().out.splitlines()
    assert told.startswith("# 2 examples") and told.endswith("ordered rightly 50.0% → 100.0%")
    assert table == "[rules.style]" and weights == "weights = { short = 0.0, polite = 1.0 }"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[rules", "it is no TOML"),
        (FILE.replace("words", "word"), "propositions.polite.word is no setting: did you mean"),
        (FILE + "[rules.other]\nweights = { polite = 1 }", "rules.style contradicts rules.other: 'polite' counts"),
        (FILE.replace("style", "kind"), "rule:kind is a rule and an objective of the reward model"),
        (FILE.replace("polite = 1 }", "polite = 0 }"), "test 1: polite is 1.00, expected 0.00"),
    ],
)
def test_what_is_refused_changes_nothing(file: Path, state: Path, capsys: Captured, text: str, words: str) -> None:
    store = open_registry(state / "versions").store
    record.apply(store, parse(FILE))
    file.write_text(text)
    assert main(["rules", "apply", str(file), "--state", str(state)]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert record.read(store).text == FILE


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["check", "missing.toml"], "missing.toml cannot be read: No such file"),
        (["apply"], "name the file of the rules, or give --none"),
        (["fit", "FILE", "missing.jsonl"], "missing.jsonl cannot be read"),
        (["fit", "FILE", "FILE", "--rule", "stile"], "line 2: "),
    ],
)
def test_a_mistake_is_one_sentence(file: Path, capsys: Captured, command: list[str], words: str) -> None:
    assert main(["rules", *(str(file) if word == "FILE" else word for word in command)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
