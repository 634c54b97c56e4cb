"""The gate's report of a version as lines of text."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = 100


def report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Each check with its figures, objections, notes and table; at the end examples, which checks name by number."""
    for check in report["checks"]:
        yield f"{'passed  ' if check['passed'] else 'OBJECTS '} {check['name']}"
        yield from _wrapped("  " + _values(check["figures"]))
        for words in (*check["objections"], *check["notes"]):
            yield from _wrapped(f"  - {words}")
        for row in check["rows"]:
            yield from _wrapped("  | " + _values(row))
        if check["examples"]:
            yield f"  examples: {', '.join(str(place + 1) for place in check['examples'])}"
    for number, example in enumerate(report["examples"], 1):
        yield ""
        yield f"Example {number}"
        for name, score in (("prompt", None), ("live", "live_score"), ("candidate", "score")):
            told = "" if score is None or example.get(score) is None else f" (score {example[score]:.2f})"
            yield from _wrapped(f"  {name}{told}: {example[name]}")


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {f'{v:.4g}' if isinstance(v, float) else v}" for name, v in values.items())


def _wrapped(text: str) -> list[str]:
    """Whatever people wrote, no character of it steers the terminal."""
    text = "".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return [
        line
        for part in text.splitlines()
        for line in textwrap.wrap(part, WIDTH, subsequent_indent="    ", drop_whitespace=False)
        if line.strip()
    ]
