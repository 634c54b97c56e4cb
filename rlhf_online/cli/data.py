"""`rlhf-online data …`: people's data in and out, as files of the formats that others write and read."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption
from rlhf_online.cli.gap import ConfigOption, content_keys, keystore_settings, log_settings
from rlhf_online.errors import InvalidInput
from rlhf_online.state import StateDir

app = typer.Typer(help="People's data in and out, in the formats that others write and read.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")]


@app.command("formats")
def formats() -> None:
    """What `--format` may be."""
    from rlhf_online.data.formats import FORMATS

    for name, form in FORMATS.items():
        print(f"{name:24} {form.about}")


@app.command("import", no_args_is_help=True)
def import_files(
    files: Annotated[list[Path], typer.Argument(help="Files of the format, plain or compressed with gzip.")],
    form: Annotated[str, typer.Option("--format", help="Their format: `data formats` lists them.")],
    objective: Annotated[
        str, typer.Option(help="What votes that name no objective are judged by: one of reward.objectives.")
    ] = "",
    state: StateOption = DEFAULT_STATE,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a file's exchanges and votes into the event log, which no service may be writing to meanwhile.

    They are learned from as people's votes are, held out by conversation, and erased with it; none trains the policy
    as an answer of its own. Importing a file twice adds nothing. What cannot be used is counted, with the reason.
    """
    from rlhf_online.data.exchanges import Place
    from rlhf_online.data.formats import format_named
    from rlhf_online.data.importing import Importer, imported_ids, wait_shipped
    from rlhf_online.eventlog import log_folder, open_sink, open_source
    from rlhf_online.keystore import open_for_log
    from rlhf_online.salt import open_person_hash

    wanted, folder = format_named(form), StateDir(state)
    folder.close_to_others()
    settings = log_settings(folder, config)
    person_hash = open_person_hash(folder, log_folder(settings, folder.log))
    keys = open_for_log(keystore_settings(folder, config), folder.root, log_folder(settings, folder.log))
    sink = open_sink(settings, folder.log)
    try:
        source = open_source(settings, folder.log)
        try:
            known = imported_ids(source)
        finally:
            source.close()
        importer, told, left = Importer(sink, known, keys), [], 0
        for path in files:
            place = Place(form, path.name, person_hash, objective)
            with _counting(path.name, quiet=as_json) as progress:
                begin = time.monotonic()
                report = importer.add(path, wanted, place, progress)
            told.append({"file": path.name} | report.figures(time.monotonic() - begin))
            left += not report.imported and not report.already
            if not as_json:
                print("\n".join(_table(told[-1])))
        if waiting := wait_shipped(sink):
            where = log_folder(settings, folder.log)
            remedy = "start the chat service with this state, or import again once the brokers answer"
            typer.echo(f"{waiting} records in {where} are not in Kafka yet: {remedy}", err=True)
    finally:
        sink.close()
    if as_json:
        print(json.dumps(told))
    if left:
        raise InvalidInput("nothing of it could be imported: is --format the right one? `rlhf-online data formats`")


@app.command("export", no_args_is_help=True)
def export_votes(
    out: Annotated[Path, typer.Argument(help="New file: .jsonl, .jsonl.gz or .parquet.")],
    form: Annotated[str, typer.Option("--format", help="trl-preference, trl-unpaired, openai-preference or votes.")],
    state: StateOption = DEFAULT_STATE,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the log's votes to a file, each with its prompt and answers; the services may run.

    What was taken back, replaced or erased is left out, and so are answers that called tools. With each row go, but in
    OpenAI's shape, the versions that answered, the hash of who judged, when and why. `votes` holds judgements of every
    kind, and loses nothing of them; tokens, and what a model thought before it answered, are in no file.
    """
    from rlhf_online.data.exporting import export, shape_named
    from rlhf_online.data.votes import LoggedVotes
    from rlhf_online.eventlog import open_source

    shape_named(form)
    folder = StateDir(state)
    settings = log_settings(folder, config)
    if settings.url == "file:" and not folder.log.is_dir():
        raise InvalidInput(f"no event log at {folder.log}: --state takes the folder of `rlhf-online up`")
    source = open_source(settings, folder.log)
    try:
        votes = LoggedVotes(source, content_keys(folder, config))
        rows, left_out = export(votes, form, out)
    finally:
        source.close()
    left_out += votes.left_out
    if as_json:
        print(json.dumps({"rows": rows, "left_out": dict(left_out.most_common())}))
        return
    print(f"{rows} rows in {out}")
    for reason, count in left_out.most_common():
        print(f"  left out: {reason:15}{count:>9}")


@contextmanager
def _counting(name: str, *, quiet: bool) -> Iterator[Any]:
    """Counts rows on a terminal while the block runs."""
    if quiet:
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status(name) as status:
        yield lambda report: status.update(f"{name}: {report.rows} rows")


def _table(figures: dict[str, Any]) -> Iterator[str]:
    yield f"{figures['file']}: {figures['rows']} rows in {figures['seconds']:.1f} s"
    yield f"  imported       {figures['imported']:>9}   {figures['votes']} votes on {figures['exchanges']} exchanges"
    yield f"  already there  {figures['already']:>9}"
    yield f"  refused        {sum(figures['refused'].values()):>9}"
    for reason, count in figures["refused"].items():
        yield f"    {reason:13}{count:>9}   {figures['examples'][reason][0]}"
    for title in ("notes", "passed_over"):
        for name, count in figures[title].items():
            what = "odd, and imported" if title == "notes" else "rows with a field that nobody reads"
            yield f"  {name:15}{count:>9}   {what}"
