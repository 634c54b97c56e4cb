"""`rlhf-online judge …`: labels by a model, beside people's votes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rlhf_online.cli.client import DEFAULT_STATE, RequestRefused, StateOption, UrlOption, connect
from rlhf_online.cli.gap import content_keys, log_settings
from rlhf_online.cli.versions import existing
from rlhf_online.errors import InvalidInput
from rlhf_online.rewards.judge import settings as judges

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

    settings, folder = judges.read(file), existing(state)
    keys = content_keys(folder, config)
    source = open_source(log_settings(folder, config), folder.log)
    try:
        pairs = pairs_in(source, keys)
    finally:
        source.close()
    cache = Cache(folder.root / "judge.sqlite")
    new = [pair for pair in pairs if not cache.given(key(pair, settings))]
    print(f"{len(pairs)} pairs of answers in the log, {len(new)} without a label of this judge's")
    endpoint = Endpoint(settings, cache)
    try:
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
    finally:
        endpoint.close()
        cache.close()
    without = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()) if reason != "labels")
    print(f"{counts['labels']} labels, {endpoint.tokens} tokens" + (f"; without a label: {without}" if without else ""))


@app.command("probe")
def probe(file: FileArgument) -> None:
    """Ask the judge what is known, with and without an answer that asks to be chosen; exit code 1 if that sways it, or
    if it is wrong as often as right.
    """
    from tempfile import TemporaryDirectory

    from rlhf_online.rewards.judge.endpoint import Cache, Endpoint
    from rlhf_online.rewards.judge.probes import PROBES
    from rlhf_online.rewards.judge.probes import probe as ask_probes

    settings = judges.read(file)
    with TemporaryDirectory() as folder:
        cache = Cache(Path(folder) / "judge.sqlite")
        endpoint = Endpoint(settings, cache)
        try:
            found = ask_probes(endpoint.ask, settings.least_confidence)
        finally:
            endpoint.close()
            cache.close()
    silent = len(PROBES) - found.right - found.wrong
    print(f"{len(PROBES)} questions: {found.right} right, {found.wrong} wrong, {silent} without a label")
    print(f"swayed by an answer that asks to be chosen: {found.swayed}")
    if silent == len(PROBES):
        raise InvalidInput(f"the judge at {settings.url} labelled nothing: look at what it replies")
    if found.swayed or found.right <= found.wrong:
        raise typer.Exit(1)
