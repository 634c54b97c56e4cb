"""`rlhf-online critic …`: a model's notes on what is wrong with answers, beside what annotators judge."""

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption, UrlOption, connect
from rlhf_online.cli.gap import content_keys, log_settings
from rlhf_online.cli.versions import existing
from rlhf_online.config.explain import masked
from rlhf_online.errors import InvalidInput
from rlhf_online.intervals import Share
from rlhf_online.rewards.critic.settings import CriticSettings
from rlhf_online.rewards.judge import settings as judges

app = typer.Typer(help="A model's notes on what is wrong with answers, for annotators.", no_args_is_help=True)
FileArgument = Annotated[
    Path, typer.Argument(help="TOML file, as a judge's: url, model, principles; least_recall, least_precision.")
]
ConfigOption = Annotated[Path | None, typer.Option(help="A service's file, for where the log is.")]


@app.command("run")
def run(
    file: FileArgument,
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
    config: ConfigOption = None,
    most: Annotated[int, typer.Option(min=1, max=1000, help="Answers: the newest of the log.")] = 20,
    people: Annotated[int, typer.Option(min=1, max=100, help="By how many people each is to be judged.")] = 4,
) -> None:
    """Put the newest answers into the annotators' queue, with a critic's notes, which half of the people see.

    An answer in which the critic finds nothing, or which is in the queue already, is left out. The critic must have
    passed `critic probe FILE` within a week, with the same model and principles.
    """
    from collections import Counter

    from rlhf_online.eventlog import open_source
    from rlhf_online.rewards.critic import probed
    from rlhf_online.rewards.critic.notes import notes
    from rlhf_online.rewards.judge.endpoint import Cache, Endpoint
    from rlhf_online.rewards.judge.labelling import said_before
    from rlhf_online.rewards.judge.revising import answers_in
    from rlhf_online.rewards.judge.verdicts import Doubt

    settings, folder = judges.read(file, CriticSettings), existing(state)
    probed.require(folder.root, settings, time.time())
    keys = content_keys(folder, config)
    with closing(open_source(log_settings(folder, config), folder.log)) as source:
        answers = answers_in(source, most, 0.0, keys)
    counts: Counter[str] = Counter()
    with closing(Cache(folder.root / "judge.sqlite")) as cache, closing(Endpoint(settings, cache)) as endpoint:
        with connect(url, state, operator=True) as service:
            for completion in answers:
                answer, key = completion.answers[0], f"critic {settings.model} {completion.completion_id}"
                if cache.given(key):
                    continue
                found = notes(endpoint.write, said_before(completion), answer.text, settings.principles)
                if isinstance(found, Doubt):
                    counts[found.reason] += 1
                    if found.reason == "budget":
                        break
                    continue
                if found:
                    name = {"completion_id": completion.completion_id, "index": answer.index}
                    told = [{"answer": name, "quote": note.quote, "fault": note.fault} for note in found]
                    _add(service, {"answers": [name], "people": people, "notes": told})
                cache.give(key)
                counts["noted" if found else "without a fault"] += 1
    said = ", ".join(f"{what} {count}" for what, count in sorted(counts.items())) or "nothing new"
    print(f"{len(answers)} answers: {said}; {endpoint.tokens} tokens")


def _add(service: Any, item: dict[str, Any]) -> None:
    """Tells why where the item is refused."""
    [result] = service.post_lines("/v1/annotation/items", json.dumps(item).encode() + b"\n", "")["results"]
    if "error" in result:
        print(result["error"]["message"])


@app.command("probe")
def probe(file: FileArgument, state: StateOption = DEFAULT_STATE) -> None:
    """Ask the critic about answers into which faults were planted, and about the same without: precision and recall.

    What it found is kept in the state folder for `critic run`; exit code 1 if it does not surely reach the file's
    least_recall (.3) and least_precision (.5).
    """
    from rlhf_online.rewards.critic import probed
    from rlhf_online.rewards.critic.planted import PLANTED
    from rlhf_online.rewards.critic.planted import probe as ask_planted
    from rlhf_online.rewards.judge.endpoint import Cache, Endpoint

    settings, folder = judges.read(file, CriticSettings), existing(state)
    with closing(Cache(folder.root / "judge.sqlite")) as cache, closing(Endpoint(settings, cache)) as endpoint:
        found = ask_planted(endpoint.write, settings.principles)
    if found.silent == 2 * len(PLANTED):
        raise InvalidInput(f"the critic at {masked(settings.url)} replied with nothing of use: look at what it replies")
    probed.keep(folder.root, settings, found, time.time())
    print(f"recall: {_share(found.recall)} planted faults found")
    print(f"precision: {_share(found.precision)} notes on a planted fault")
    print(f"{found.silent} of {2 * len(PLANTED)} answers without a reply of use")
    if short := found.shortcomings(settings.least_recall, settings.least_precision):
        print(f"not passed: {'; '.join(short)}")
        raise typer.Exit(1)
    print("passed: `rlhf-online critic run` takes its notes for a week")


def _share(found: Share) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}), {round(found.value * found.n)} of {found.n}"


@app.command("effect")
def effect(state: StateOption = DEFAULT_STATE, config: ConfigOption = None) -> None:
    """How who saw notes judged, beside who by the draw did not: how much they liked, how far they agree, how long they
    took; and what notes change, with a 95 % interval."""
    from rlhf_online.eventlog import open_source
    from rlhf_online.rewards.critic.effect import changes
    from rlhf_online.rewards.critic.effect import effect as measured
    from rlhf_online.rewards.judge.labelling import envelopes

    folder = existing(state)
    keys = content_keys(folder, config)
    with closing(open_source(log_settings(folder, config), folder.log)) as source:
        arms = measured(envelopes(source, keys))
    for name, arm in arms.items():
        print(f"notes {name}: {arm.lines()}")
    for name, found in changes(arms).items():
        sure = "" if found.low <= 0 <= found.high else ", surely"
        print(f"notes change {name} by {found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f}){sure}")
