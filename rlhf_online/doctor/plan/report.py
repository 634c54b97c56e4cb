"""What a plan says to people and to programs: whether it fits, by how much not, and what would have it fit."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlhf_online.doctor.finding import Finding, ok, refuse, warn
from rlhf_online.doctor.plan.reckoning import (
    ALONE,
    PROCESS,
    Choice,
    Place,
    Plan,
    Ranks,
    choices,
    chosen,
    needed,
    plan,
    scorer,
)
from rlhf_online.doctor.plan.shape import Shape
from rlhf_online.training.settings import TrainerSettings

GIB = 1 << 30
MOST_RANKS = 256
"""Beyond which nobody is told to start more."""
MEMINFO = Path("/proc/meminfo")
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def fits(shape: Shape, settings: TrainerSettings, memory: int, place: Place, ranks: Ranks = ALONE) -> Finding:
    """Whether the trainer fits into `memory` bytes, by how much not, and which setting, or how many ranks, would have
    it fit: of a GPU, which one rank has, or of a machine, which those on it share."""
    now = chosen(settings, gpu=place != "a CPU")
    size, where = needed(shape, settings, now, place, ranks), _where(place, ranks)
    if size <= memory:
        takes = f", and takes {_gib(plan(shape, settings, now, ranks).taken(memory))}" if place == "a GPU" else ""
        return ok("memory", f"the trainer needs about {_gib(size)} of {_gib(memory)} on {where}{takes}")
    what = (
        f"the trainer needs about {_gib(size)} on {where} with {now.told()}, and there are {_gib(memory)}: "
        f"{_gib(size - memory)} too few"
    )
    others = _other_ranks(shape, settings, now, memory, place, ranks)
    if settings.sharding == "full" and ranks.number == 1:
        # Whoever cuts models starts several, and a trainer's settings do not say how many.
        say = "say with --ranks how many there are"
        return warn("memory", f"{what}, in one process", f"{others}; {say}" if others else say)
    sizes = [(needed(shape, settings, each, place, ranks), each) for each in choices(settings)]
    enough = [(bytes_, each) for bytes_, each in sizes if bytes_ <= memory]
    if enough:
        bytes_, each = min(enough, key=lambda item: len(now.changes(item[1])))
        todo = f"{_changes(now, each)} needs {_gib(bytes_)}"
        return refuse("memory", what, f"{todo}; or {others}" if others else todo)
    bytes_, each = min(sizes, key=lambda item: item[0])
    least = f"a smaller model or more memory: {_changes(now, each)} would need {_gib(bytes_)}"
    return refuse("memory", what, others or least)


def _other_ranks(shape: Shape, settings: TrainerSettings, now: Choice, memory: int, place: Place, ranks: Ranks) -> str:
    """How many ranks would have it fit, and what each or all then need; "" where no number would."""
    if place != "a GPU":
        for here in range(ranks.here - 1, 0, -1):
            if (size := needed(shape, settings, now, place, ranks.each(here))) <= memory:
                return f"{_count(here)} on a machine would need {_gib(size)}"
        return ""
    cut = replace(now, sharding="full")
    for number in range(ranks.number + (now == cut), MOST_RANKS + 1):
        if number > 1 and (size := needed(shape, settings, cut, place, Ranks(number=number, here=1))) <= memory:
            changed = "".join(f"{name} and " for name in now.changes(cut))
            return f"{changed}{_count(number)} would need {_gib(size)} on each GPU"
    return ""


def table(shape: Shape, settings: TrainerSettings, ranks: Ranks = ALONE) -> list[str]:
    """For people: a line a combination; activations are kept, or computed again, and moments lie where the settings
    say. Of several ranks it is what rank 0 needs, and what each of the others does of its host."""
    lines = [
        f"{shape.weights / 1e6:,.1f} million weights, {'bfloat16' if shape.narrow else 'not all bfloat16'}, "
        f"{shape.depth} layers of {shape.width}; GiB"
    ]
    several = ranks.number > 1
    if several:
        kept = "a piece of what learns in full" if settings.sharding == "full" else "whole models"
        lines.append(f"each of {_count(ranks.number)} ({ranks.here} a machine) keeps {kept}; host and CPU are rank 0's")
    lines.append(
        f"{'tuning':<8}{'reward':<8}{'dtype':<10}{'GPU':>8}{'full passes':>13}{'its host':>10}{'CPU alone':>11}"
        + (f"{'other hosts':>13}{'other CPUs':>12}" if several else "")
        + f"{'reward service':>16}"
    )
    for now in choices(settings):
        if (now.recompute, now.optimiser_state) != (settings.recompute, settings.optimiser_state):
            continue
        first, other = (plan(shape, settings, now, ranks, leads=leads) for leads in (True, False))
        sizes = [first.on_device, first.full_passes, first.on_host, first.on_cpu]
        sizes += [other.on_host, other.on_cpu] if several else []
        widths = [8, 13, 10, 11] + ([13, 12] if several else []) + [16]
        cells = [*sizes, scorer(shape, settings, now.dtype)]
        shown = "".join(f"{size / GIB:>{width}.1f}" for size, width in zip(cells, widths, strict=True))
        lines.append(f"{now.tuning:<8}{now.reward_tuning:<8}{now.dtype:<10}{shown}")
    return lines


def rows(shape: Shape, settings: TrainerSettings, ranks: Ranks = ALONE) -> Iterator[dict[str, Any]]:
    """For programs: of each combination what rank 0 needs, and each of the others."""
    for now in choices(settings):
        first, other = (plan(shape, settings, now, ranks, leads=leads) for leads in (True, False))
        yield {
            **asdict(now),
            **_sizes(first),
            "gpu_full_passes": first.full_passes,
            "reward_service": scorer(shape, settings, now.dtype),
            "parts": parts(first),
            "other_ranks": {**_sizes(other), "parts": parts(other)} if ranks.number > 1 else None,
        }


def _sizes(one: Plan) -> dict[str, int]:
    return {"gpu": one.on_device, "host": one.on_host, "cpu": one.on_cpu}


def parts(one: Plan) -> dict[str, int]:
    """Bytes by what they are for: what is held, then what each phase adds to it on device and host together."""
    added = {f"while {name}": size for name, size in one.added().items()}
    return {"the process itself": PROCESS, **one.held, **one.on_host_held, **added}


def by_rank(shape: Shape, settings: TrainerSettings, now: Choice, ranks: Ranks) -> list[str]:
    """For people: `parts`, of rank 0 and beside it, where there are several, of each other."""
    leads = (True, False) if ranks.number > 1 else (True,)
    columns = [parts(plan(shape, settings, now, ranks, leads=each)) for each in leads]
    lines = ["  rank 0   others"] if ranks.number > 1 else []
    for name in dict.fromkeys(name for column in columns for name in column):
        sizes = "".join(f"  {column[name] / GIB:6.1f}" if name in column else " " * 8 for column in columns)
        lines.append(f"{sizes}  {name}")
    return lines


def memory() -> int:
    """Bytes that processes may have here: the machine's, or what the container is limited to."""
    total = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemTotal"))
    limits = [1024 * int(total.split()[1])]
    for path in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int(path.read_text()))
    return min(limits)


def _where(place: Place, ranks: Ranks) -> str:
    if ranks.number == 1:
        return place
    if place == "a GPU":
        return f"the GPU of each of {_count(ranks.number)}"
    return f"{place} for its {_count(ranks.here)} of {ranks.number}"


def _count(ranks: int) -> str:
    return f"{ranks} ranks" if ranks > 1 else "1 rank"


def _changes(one: Choice, other: Choice) -> str:
    return ", ".join(one.changes(other)) or "the same"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
