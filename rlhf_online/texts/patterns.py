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
_PART = re.compile(r"\\.|\[(?:\\.|[^\]\\])+\]|\{(\d+)(,?)(\d*)\}|.", re.DOTALL)


def size(pattern: str) -> int:
    """About how many characters and classes it has with its counted repetitions written out: `(a{3}b){2}` has 8."""
    groups, last = [0], 0
    for part in _PART.finditer(pattern):
        match part[0]:
            case "(":
                groups.append(0)
                continue
            case ")" if len(groups) > 1:
                last = groups.pop()
                groups[-1] += last
                continue
            case "*" | "+" | "?" | "|":
                continue
        if part[1] is None:
            last = 1
            groups[-1] += 1
        else:
            times = max(int(part[3] or part[1]), 1)
            groups[-1] += last * (times - 1)
            last *= times
    return sum(groups)


def check_bounded(pattern: str) -> str:
    """As `check`; raises ValueError also for one whose counted repetitions would take long on every text."""
    if (found := size(check(pattern))) > MOST_SIZE:
        raise ValueError(
            f"its repetitions make it {found} characters long, and {MOST_SIZE} may be: count with `length` instead"
        )
    return pattern


BoundedRegex = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(check_bounded)]
"""As a setting."""
