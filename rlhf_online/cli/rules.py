"""`rlhf-online rules …`: what answers are paid for by rules, without a vote."""

import math
from pathlib import Path
from typing import Annotated

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption
from rlhf_online.cli.versions import existing, registry_of
from rlhf_online.errors import InvalidInput
from rlhf_online.rewards import weights
from rlhf_online.rewards.rules import fitting, record
from rlhf_online.rewards.rules.propositions import Exchange
from rlhf_online.rewards.rules.ruleset import NONE, PREFIX, Rules, failures, parse, reward

app = typer.Typer(help="Rules over answers, whose rewards are added to the reward model's.", no_args_is_help=True)
FileArgument = Annotated[Path, typer.Argument(help="TOML file of [propositions] and [rules].", show_default=False)]
PART = "{:<28} {:<28} {:>8} {:>8} {:>8}"


def _read(file: Path) -> Rules:
    """Raises InvalidInput."""
    try:
        return parse(file.read_text(), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error


@app.command("check")
def check(file: FileArgument) -> None:
    """Read a file as the services will, and say what is wrong with it; nothing is changed."""
    rules = _read(file)
    print(f"{_told(rules)}: {len(rules.set.propositions)} propositions, {len(rules.set.tests)} tests")
    used = {name for rule in rules.set.rules.values() for name in (*rule.weights, rule.when)}
    for name in rules.set.propositions:
        if name not in used:
            print(f"propositions.{name} is in no rule: it has no effect")


@app.command("test")
def test(file: FileArgument) -> None:
    """Ask the file's [[tests]]; the exit code is 1 if one of them fails."""
    rules = _read(file)
    if not rules.set.tests:
        raise InvalidInput(f"{file} holds no [[tests]]: give answers, and what the rules must say of them")
    wrong = list(failures(rules.set, rules.set.tests))
    for line in wrong:
        print(line)
    print(f"{len(rules.set.tests)} tests, {len(wrong)} expectations failed")
    if wrong:
        raise typer.Exit(1)


@app.command("explain")
def explain(
    answer: Annotated[str, typer.Argument(help="What was answered.", show_default=False)],
    prompt: Annotated[str, typer.Option(help="What was asked.")] = "",
    file: Annotated[Path | None, typer.Option(help="Rules of a file, instead of those in force.")] = None,
    cut: Annotated[bool, typer.Option("--cut", help="The answer did not end by itself.")] = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """What each proposition says of an answer, and what each rule adds to its score."""
    rules = _read(file) if file else record.read(registry_of(existing(state)).store)
    features = rules.set.features(Exchange(prompt, answer, not cut))
    print(PART.format("RULE", "PROPOSITION", "FEATURE", "WEIGHT", "REWARD"))
    for name, rule in rules.set.rules.items():
        for each, weight in rule.weights.items():
            print(PART.format(name, each, f"{features[each]:.2f}", f"{weight:g}", f"{weight * features[each]:+.2f}"))
        when = "" if rule.when is None else f"when {rule.when}"
        part = "" if rule.when is None else f"{features[rule.when]:.2f}"
        print(PART.format(PREFIX + name, when, part, "", f"{reward(rule, features):+.2f}"))
    total = math.fsum(reward(rule, features) for rule in rules.set.rules.values())
    version = rules.version or "no rules"
    print(f"{version}: {total:+.2f} standard deviations of the reward model's score, at weight 1 each")


@app.command("fit")
def fit(
    file: FileArgument,
    examples: Annotated[Path, typer.Argument(help="JSON Lines of prompt, chosen, rejected.", show_default=False)],
    rule: Annotated[str, typer.Option(help="Whose weights; by default those of the only rule.")] = "",
) -> None:
    """Weights by which a rule orders answers as examples do, to put into the file.

    A line is {"prompt": "…", "chosen": "…", "rejected": "…"}; with "scores": [chosen's, rejected's], which are the
    reward model's, the rule learns what it must add to these.
    """
    rules = _read(file)
    name = rule or _only(file, rules)
    found = fitting.fit(rules.set, name, fitting.read_examples(examples))
    print(f"# {found.examples} examples, before → after: loss {found.loss[0]:.3f} → {found.loss[1]:.3f}, ", end="")
    print(f"ordered rightly {found.ordered[0]:.1%} → {found.ordered[1]:.1%}")
    print("\n".join(fitting.lines(name, found)))


def _only(file: Path, rules: Rules) -> str:
    if len(rules.set.rules) != 1:
        known = ", ".join(rules.set.rules) or "none"
        raise InvalidInput(f"{file} holds {len(rules.set.rules)} rules ({known}): say with --rule whose weights to fit")
    return next(iter(rules.set.rules))


@app.command("apply")
def apply(
    file: Annotated[Path | None, typer.Argument(help="TOML file of rules.", show_default=False)] = None,
    none: Annotated[bool, typer.Option("--none", help="No rules from now on.")] = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Put the rules of a file in force, in place of those before: the reward service follows within seconds, the
    trainer with its next cycle. Nothing is trained anew; `reward-weights rule:NAME=VALUE` says how much each counts.
    """
    if (file is None) is not none:
        raise InvalidInput("name the file of the rules, or give --none, not both")
    rules = _read(file) if file else NONE
    wrong = list(failures(rules.set, rules.set.tests))
    if wrong:
        raise InvalidInput(f"{file}: {wrong[0]} (`rlhf-online rules test` shows all): nothing was changed")
    registry = registry_of(existing(state))
    if registry.live("reward"):
        weights.applicable({}, weights.objectives(registry), rules.set.objectives)  # whether a name is taken
    changed = record.apply(registry.store, rules)
    print(_told(rules) + ("" if changed else ", as before"))


@app.command("show")
def show(state: StateOption = DEFAULT_STATE) -> None:
    """The rules in force, as they were written."""
    rules = record.read(registry_of(existing(state)).store)
    print(f"# {_told(rules)}")
    if rules.text:
        print(rules.text, end="" if rules.text.endswith("\n") else "\n")


def _told(rules: Rules) -> str:
    return f"{rules.version}: {', '.join(rules.set.objectives)}" if rules.set.rules else "no rules"
