"""`rlhf-online judge …`: labels by a model, beside people's votes."""

import json
import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from rlhf_online.cli.client import DEFAULT_STATE, RequestRefused, StateOption, UrlOption, connect
from rlhf_online.cli.gap import content_keys, log_settings
from rlhf_online.cli.versions import existing
from rlhf_online.config.explain import masked
from rlhf_online.errors import InvalidInput
from rlhf_online.rewards.judge import settings as judges
from rlhf_online.rewards.judge.settings import JudgeSettings

app = typer.Typer(help="Labels by a model, of any OpenAI-compatible endpoint.", no_args_is_help=True)
FileArgument = Annotated[Path, typer.Argument(help="TOML file: url, model, principles.", show_default=False)]


@app.command("run")
def run(
    file: FileArgument,
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
    config: Annotated[Path | None, typer.Option(help="A service's file, for where the log is.")] = None,
) -> None:
    """Ask about the pairs of answers in the log, and vote where the judge is sure; what was asked before is not again.

    The votes have the source "ai": what they weigh against people's is learned. Run it from time to time.
    """
    from rlhf_online.eventlog import open_source
    from rlhf_online.rewards.judge.endpoint import Cache, Endpoint
    from rlhf_online.rewards.judge.labelling import key, label, pairs_in

    settings, folder = judges.read(file, JudgeSettings), existing(state)
    keys = content_keys(folder, config)
    with closing(open_source(log_settings(folder, config), folder.log)) as source:
        pairs = pairs_in(source, keys)
    with closing(Cache(folder.root / "judge.sqlite")) as cache, closing(Endpoint(settings, cache)) as endpoint:
        new = [pair for pair in pairs if not cache.given(key(pair, settings))]
        print(f"{len(pairs)} pairs of answers in the log, {len(new)} without a label of this judge's")
        with connect(url, state) as service:

            def send(body: dict[str, Any]) -> bool:
                try:
                    service.post("/v1/feedback", body)
                except RequestRefused as error:
                    print(error)
                    return False
                cache.give(body["idempotency_key"])
                return True

            counts = label(new, endpoint.ask, send, settings)
            spent = endpoint.spent
    print(f"{counts.pop('labels', 0)} labels, {_used(endpoint.tokens, spent, counts)}")


@app.command("revise")
def revise(
    file: FileArgument,
    out: Annotated[Path, typer.Argument(help="New file of conversations, for `rlhf-online sft --data`.")],
    state: StateOption = DEFAULT_STATE,
    config: Annotated[Path | None, typer.Option(help="A service's file, for where the log is.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Answers to revise: the newest of the log.")] = 200,
    held_out: Annotated[
        float, typer.Option(min=0, max=1, help="Share of conversations left out, the trainer's reward.held_out.")
    ] = 0.05,
) -> None:
    """Have answers of the log criticised and written anew by the principles, as demonstrations to learn from.

    Kept are revisions that the judge prefers in both orders. Fine-tune on them with `rlhf-online sft --data OUT`.
    """
    from rlhf_online.eventlog import open_source
    from rlhf_online.rewards.judge.endpoint import Cache, Endpoint
    from rlhf_online.rewards.judge.revising import answers_in, demonstrations

    settings, folder = judges.read(file, JudgeSettings), existing(state)
    keys = content_keys(folder, config)
    with closing(open_source(log_settings(folder, config), folder.log)) as source:
        answers = answers_in(source, most, held_out, keys)
    with closing(Cache(folder.root / "judge.sqlite")) as cache, closing(Endpoint(settings, cache)) as endpoint:
        with _new_file(out) as lines:

            def keep(conversation: dict[str, Any]) -> None:
                lines.write(json.dumps(conversation, ensure_ascii=False) + "\n")
                lines.flush()

            least = settings.least_confidence
            counts = demonstrations(answers, endpoint.write, endpoint.ask, keep, settings.principles, least)
            spent = endpoint.spent
    print(
        f"{len(answers)} answers, {counts.pop('revised', 0)} revised in {out}, {_used(endpoint.tokens, spent, counts)}"
    )


def _new_file(path: Path) -> TextIO:
    """For this user alone: it holds what people said. Raises InvalidInput."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be made: {error.strerror}; name a new file") from error


def _used(tokens: int, spent: float, without: Mapping[str, int]) -> str:
    """What a run took, and what came of nothing, by its reason."""
    cost = f", {spent:.4g} spent today" if spent else ""
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(without.items()))
    return f"{tokens} tokens{cost}" + (f"; without a label: {reasons}" if reasons else "")


@app.command("probe")
def probe(file: FileArgument) -> None:
    """Ask the judge what is known, with and without an answer that asks to be chosen; exit code 1 if that sways it, or
    if it is wrong as often as right.
    """
    from tempfile import TemporaryDirectory

    from rlhf_online.rewards.judge.endpoint import Cache, Endpoint
    from rlhf_online.rewards.judge.probes import PROBES
    from rlhf_online.rewards.judge.probes import probe as ask_probes

    settings = judges.read(file, JudgeSettings)
    with TemporaryDirectory() as folder:
        with closing(Cache(Path(folder) / "judge.sqlite")) as cache, closing(Endpoint(settings, cache)) as endpoint:
            found = ask_probes(endpoint.ask, settings.least_confidence)
    silent = len(PROBES) - found.right - found.wrong
    print(f"{len(PROBES)} questions: {found.right} right, {found.wrong} wrong, {silent} without a label")
    print(f"swayed by an answer that asks to be chosen: {found.swayed}")
    if silent == len(PROBES):
        raise InvalidInput(f"the judge at {masked(settings.url)} labelled nothing: look at what it replies")
    if found.swayed or found.right <= found.wrong:
        raise typer.Exit(1)
