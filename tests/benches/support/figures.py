"""What a bench found, for people or for programs."""

import json
from collections.abc import Mapping, Sequence


def show(values: Mapping[str, float | int | str], *, as_json: bool) -> None:
    """A line a figure, or all as one JSON object."""
    if as_json:
        print(json.dumps(values))
        return
    width = max(len(name) for name in values)
    for name, value in values.items():
        print(f"{name:<{width}}  {value:>12,}" if not isinstance(value, str) else f"{name:<{width}}  {value:>12}")


def p99(values: Sequence[float]) -> float:
    """The 99th percentile; of a hundred values or more."""
    assert len(values) >= 100, f"{len(values)} values have no 99th percentile"
    return sorted(values)[len(values) * 99 // 100]
