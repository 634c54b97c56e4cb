"""`rlhf-online trace …`: who wrote an answer and who has learned from it; what a version, or from whom, has learned.

It reads the log and the versions themselves, whether a service runs or not.
"""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption
from rlhf_online.cli.gap import ConfigOption, content_keys, log_settings
from rlhf_online.cli.versions import existing, registry_of
from rlhf_online.errors import InvalidInput
from rlhf_online.state import PERSON_SALT, StateDir

if TYPE_CHECKING:  # imported where it is used, so that --help is instant
    from rlhf_online.attribution.replies import (
        CompletionTrace,
        LearnedFrom,
        PersonData,
        TracedPlace,
        TracedVersion,
        VersionData,
    )

HASH = re.compile(r"[0-9a-f]{32}")


def trace(
    completion: Annotated[str, typer.Argument(help="Id of a completion, 'chatcmpl-…'.", show_default=False)] = "",
    votes: Annotated[
        str, typer.Option(metavar="VERSION", help="List the votes and answers that a version has learned from.")
    ] = "",
    person: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="List the versions that have learned from a person's data: their name, or its hash (32 digits). An "
            "end user of a key that signs is its owner, a line break, and the name.",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
    state: StateOption = DEFAULT_STATE,
    config: ConfigOption = None,
) -> None:
    """Who wrote an answer, what was said of it and what became of that, and which versions have learned from it.

    No text of a conversation is printed. Looking an answer up reads the whole log: the local one, or Kafka's topics.
    """
    from rlhf_online.attribution.trace import person_data, version_data

    if len([given for given in (completion, votes, person) if given]) != 1:
        raise InvalidInput("name one thing to trace: a completion's id, --votes VERSION or --person NAME")
    folder = existing(state)
    registry = registry_of(folder)
    if votes:
        found, lines = (data := version_data(votes, registry)), _data_lines(data)
    elif person:
        found, lines = (data := person_data(person_hash(folder, person), registry)), _person_lines(data)
    else:
        found, lines = (data := _traced(folder, config, completion)), _trace_lines(data)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for line in lines:
        print(line)


def _traced(state: StateDir, config: Path | None, completion: str) -> "CompletionTrace":
    from rlhf_online.attribution.search import Place, search
    from rlhf_online.attribution.trace import trace
    from rlhf_online.eventlog import kafka_cluster, log_folder, open_source
    from rlhf_online.eventlog.base import PARTITION
    from rlhf_online.eventlog.folder import segment_of

    settings = log_settings(state, config)
    keys = content_keys(state, config)
    folder = log_folder(settings, state.log)
    if kafka_cluster(settings) is None and not folder.is_dir():
        raise InvalidInput(f"there is no log in {folder}: name the settings that say where it is with --config")

    def segment(place: Place) -> str:
        return segment_of(folder, place.offset) if place.partition == PARTITION else ""

    source = open_source(settings, state.log)
    try:
        found = search(source, completion, keys)
    finally:
        source.close()
    return trace(completion, found, registry_of(state), segment=segment)


def person_hash(state: StateDir, person: str) -> str:
    """The hash that stands for the person in the log. Raises InvalidInput, SecretLost."""
    if HASH.fullmatch(person):
        return person
    if not (state.root / PERSON_SALT).is_file():
        raise InvalidInput(f"there is no {PERSON_SALT} in {state.root} to hash a name with: give the person's hash")
    return state.person_hash()(person)


# For people


def _trace_lines(found: "CompletionTrace") -> Iterator[str]:
    yield f"{found['completion_id']}" + (f"  in {found['conversation_id']}" if found["conversation_id"] else "")
    if found["place"]:
        yield f"  log       {_where(found['place'])}, asked {_time(found['started_ms'])}"
        yield f"  by        {found['person'] or 'nobody'}" + (
            f", shown in {found['comparison_id']}" if found["comparison_id"] else ""
        )
    for answer in found["answers"]:
        spans = ", ".join(
            f"{span['policy_version'] or 'unknown'} wrote tokens {span['first_token']} to "
            f"{span['first_token'] + span['tokens'] - 1}"
            for span in answer["spans"]
            if span["tokens"]
        )
        yield f"  answer {answer['index']}  {answer['tokens']} tokens ({answer['finish_reason']}): {spans or 'unknown'}"
    for version in found["versions"]:
        yield from _version_lines(version)
    yield f"votes on it: {len(found['votes']) or 'none'}"
    for vote in found["votes"]:
        yield f"  {vote['event_id']}  {vote['kind']} by {vote['person'] or 'nobody'}, {_where(vote['place'])}"
        yield f"    {vote['message']}"
    yield f"versions that learned from it themselves: {len(found['learned_in']) or 'none'}"
    for use in found["learned_in"]:
        said = [f"{len(use['votes'])} votes"] if use["votes"] else []
        said += [f"answer {index}" for index in use["answers"]]
        yield f"  {use['version']}  {', '.join(said)}"
    for note in found["notes"]:
        yield f"note: {note}"


def _version_lines(version: "TracedVersion") -> Iterator[str]:
    pruned = "" if version["weights"] else "; its weights are not kept"
    yield (
        f"{version['version']}  {version['state']}" + (f" ({version['reason']})" if version["reason"] else "") + pruned
    )
    if version["created_ms"]:
        yield (
            f"  parent {version['parent'] or 'none'}, scored by {version['reward_version'] or 'none'}, "
            f"KL {version['kl']:.3f} to {version['reference'] or 'none'}"
        )
    if version["gate"]:
        yield "  gate: " + ", ".join(f"{name} {value:.3g}" for name, value in sorted(version["gate"].items()))
    yield from _learned_lines(version["learned_from"])


def _learned_lines(learned: "LearnedFrom") -> Iterator[str]:
    yield (
        f"  learned from {learned['votes_new']} new and {learned['votes_replayed']} replayed votes, "
        f"{learned['votes_in_all']} in all with what it goes back to; from {learned['answers']} answers, "
        f"{learned['answers_in_all']} in all"
    )
    yield from _unknown_lines(learned["unknown"])


def _data_lines(found: "VersionData") -> Iterator[str]:
    with_reward = f" and {found['reward_version']}" if found["reward_version"] else ""
    yield f"votes that {found['version']}{with_reward} learned from: {len(found['votes']) or 'none'}"
    for vote in found["votes"]:
        again = "new" if vote["new"] else "again"
        yield f"  {vote['event_id']}  {again:<5}  {vote['version']}  on {_ids(vote['completions'])}"
    yield f"answers that it learned from: {len(found['answers']) or 'none'}"
    for answer in found["answers"]:
        yield f"  {answer['completion_id']} #{answer['index']}"
    if found["asked"]:
        yield f"answers were sampled to prompts of {len(found['asked'])} people: {', '.join(found['asked'])}"
    yield (f"with all that it goes back to: {len(found['votes_in_all'])} votes, {len(found['answers_in_all'])} answers")
    before = {vote["event_id"] for vote in found["votes"]}
    for vote in found["votes_in_all"]:
        if vote["event_id"] not in before:
            yield f"  {vote['event_id']}         {vote['version']}  on {_ids(vote['completions'])}"
    yield from _unknown_lines(found["unknown"])


def _person_lines(found: "PersonData") -> Iterator[str]:
    yield f"versions that have learned from the data of {found['person']}: {len(found['versions']) or 'none'}"
    for row in found["versions"]:
        said = [f"{row['votes']} votes"] if row["votes"] else []
        said += [f"{row['answers']} answers"] if row["answers"] else []
        said += ["prompts"] if row["asked"] else []
        how = ", ".join(said) or f"through {row['through']}"
        kept = "" if row["weights"] else "; its weights are not kept"
        yield f"  {row['version']}  {row['state']:<9}  {how}{kept}"
    yield from _unknown_lines(found["unknown"])


def _unknown_lines(unknown: dict[str, str]) -> Iterator[str]:
    by_reason: dict[str, list[str]] = {}
    for version, why in unknown.items():
        by_reason.setdefault(why, []).append(version)
    for why, versions in by_reason.items():
        yield f"  unknown: {_ids(versions)}: {why}"


def _ids(ids: Sequence[str]) -> str:
    return ", ".join(ids) or "(not recorded)"


def _where(place: "TracedPlace") -> str:
    segment = f" in {place['segment']}" if place["segment"] else ""
    return f"{place['partition']} record {place['offset']}{segment}"


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S UTC}" if ms else "at no known time"
