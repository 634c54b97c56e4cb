"""`rlhf-online size`: what so many people need."""

import json
from typing import Annotated, Any, Literal

import typer

from rlhf_online.errors import InvalidInput
from rlhf_online.sizing.demand import DEMANDS, Demand
from rlhf_online.sizing.reckoning import as_json as answer
from rlhf_online.sizing.reckoning import limits, needs, shown


def _asked(name: str) -> Any:
    return typer.Option(help=f"{DEMANDS[name]}.")


_DEFAULT = Demand()


def size(
    people: Annotated[int, _asked("people")] = _DEFAULT.people,
    messages: Annotated[float, _asked("messages")] = _DEFAULT.messages,
    votes: Annotated[float, _asked("votes")] = _DEFAULT.votes,
    prompt_tokens: Annotated[float, _asked("prompt_tokens")] = _DEFAULT.prompt_tokens,
    answer_tokens: Annotated[float, _asked("answer_tokens")] = _DEFAULT.answer_tokens,
    peak: Annotated[float, _asked("peak")] = _DEFAULT.peak,
    weights_billion: Annotated[float, _asked("weights_billion")] = _DEFAULT.weights_billion,
    cache_kib: Annotated[float, _asked("cache_kib")] = _DEFAULT.cache_kib,
    tuning: Annotated[Literal["lora", "full"], _asked("tuning")] = _DEFAULT.tuning,
    gpu: Annotated[str, _asked("gpu")] = _DEFAULT.gpu,
    engine_tokens_s: Annotated[float, _asked("engine_tokens_s")] = _DEFAULT.engine_tokens_s,
    versions_a_day: Annotated[float, _asked("versions_a_day")] = _DEFAULT.versions_a_day,
    retention_days: Annotated[float, _asked("retention_days")] = _DEFAULT.retention_days,
    replication: Annotated[int, _asked("replication")] = _DEFAULT.replication,
    outage_days: Annotated[float, _asked("outage_days")] = _DEFAULT.outage_days,
    as_json: Annotated[bool, typer.Option("--json", help="For programs, with every factor and its source.")] = False,
) -> None:
    """GPUs, partitions, disks and bandwidth for so many people, and how each is reckoned (docs/sizing.md)."""
    asked = {name: value for name, value in locals().items() if name in DEMANDS}
    demand = Demand(**asked)
    try:
        found, stops = needs(demand), limits(demand)
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        raise InvalidInput(f"--{name.replace('_', '-')}:{rest}") from error
    if as_json:
        print(json.dumps(answer(demand)))
        return
    for need in found:
        print(f"{need.name:<28} {shown(need.value):>12} {need.unit:<20} {need.how}")
    for line in stops:
        print(f"beyond this release: {line}")
