"""Regular expressions that nobody can stall a service with: Rust's, whose time is linear in the length of the text.

So there is no catastrophic one, and no time-out that would make an answer's score depend on the machine. Look-around
and back-references, which need more than linear time, are refused, and so is one that is too large when compiled.
"""

import re
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, StringConstraints
from pydantic_core import SchemaError, SchemaValidator, core_schema

KEPT = 2048
"""Compiled ones kept."""


@lru_cache(maxsize=KEPT)
def _compiled(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern))


def check(pattern: str) -> str:
    """The pattern itself. Raises ValueError, with the reason, for what is no regular expression of Rust's."""
    try:
        _compiled(pattern)
    except SchemaError as error:
        why = str(error).rpartition("error: ")[2].rpartition("SchemaError: ")[2]
        raise ValueError(f"it is no regular expression of Rust's: {' '.join(why.split())}") from error
    return pattern


def found(pattern: str, text: str) -> bool:
    """Whether the pattern, which `check` has let through, matches somewhere in the text."""
    return _compiled(pattern).isinstance_python(text)


Regex = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(check)]
"""As a setting."""


# What is asked of every answer

MOST_SIZE = 500
"""A match takes time in proportion to this and to the text: up to 10 ms for 1,000 characters."""
_PART = re.compile(r"\\.|\((?:\?(?P<flags>[a-zA-Z]+))?|\{(?P<least>\d+),?(?P<most>\d*)\}|.", re.DOTALL)


def size(pattern: str) -> int:
    """About how many characters and classes it has with its counted repetitions written out: `(a{3}b){2}` has 8.

    Raises ValueError for one that allows blanks between its signs, `(?x)`, in its counts, too.
    """
    groups, last = [0], 0
    for part in _PART.finditer(_without_classes(pattern)):
        match part[0]:
            case ")" if len(groups) > 1:
                last = groups.pop()
                groups[-1] += last
            case "*" | "+" | "?" | "|":
                pass
            case text if text[0] == "(":
                if "x" in (part["flags"] or ""):
                    raise ValueError("(?x) is not supported: write it without blanks")
                groups.append(0)
            case _ if part["least"] is None:
                last = 1
                groups[-1] += 1
            case _:
                times = max(int(part["most"] or part["least"]), 1)
                groups[-1] += last * (times - 1)
                last *= times
    return sum(groups)


def _without_classes(pattern: str) -> str:
    """With a letter in the place of each class: what stands in brackets, which may stand in others. A bracket that
    closes is a sign as any other where it is the first in them."""
    found, depth, at = list[str](), 0, 0
    while at < len(pattern):
        part = pattern[at : at + 2] if pattern[at] == "\\" else pattern[at]
        at += len(part)
        if part == "[":
            depth += 1
            at += pattern.startswith("^", at)
            at += pattern.startswith("]", at)
        elif not depth:
            found.append(part)
        elif part == "]":
            depth -= 1
            found += [] if depth else ["a"]
    return "".join(found)


def check_bounded(pattern: str) -> str:
    """As `check`; raises ValueError also for one whose counted repetitions would take long on every text."""
    if (found := size(check(pattern))) > MOST_SIZE:
        raise ValueError(
            f"its repetitions make it {found} characters long, and {MOST_SIZE} may be: count with `length` instead"
        )
    return pattern


BoundedRegex = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(check_bounded)]
"""As a setting."""
