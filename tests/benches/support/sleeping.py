"""How much more CPU the same Python takes for a core that has slept: `python -m tests.benches.support.sleeping`.

One line of JSON: medians in µs of CPU, of a loop of a few instructions and of a mixture of the standard library's code,
when they are run back to back, after a tight loop of 5 ms, and after a sleep of 1 and 5 ms. A server that is asked
now and then lives in the last two.
"""

import argparse
import decimal
import email.message
import gc
import json
import os
import statistics
import string
import textwrap
import time
from collections.abc import Callable

RUNS = 200


def tight() -> None:
    total = 0
    for number in range(2_000):
        total += number & 3


def mixed() -> None:
    """Little work, and much code."""
    message = email.message.Message()
    message["content-type"] = "text/plain; charset=utf-8"
    message.get_content_charset()
    message.as_string()
    json.loads(json.dumps({"a": [1, 2, {"b": None}], "c": "d"}, indent=1))
    textwrap.fill("the quick brown fox jumps over the lazy dog " * 2, 20)
    string.Template("$a $b").substitute(a=1, b=2)
    str(decimal.Decimal("1.1") ** 3)


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def took_us(work: Callable[[], None], before: Callable[[], None]) -> float:
    """The median CPU time of `work`, each time after `before`."""
    found: list[float] = []
    for _ in range(RUNS):
        before()
        begin = time.thread_time_ns()
        work()
        found.append((time.thread_time_ns() - begin) / 1000)
    return round(statistics.median(found), 1)


BEFORE: dict[str, Callable[[], None]] = {
    "back_to_back": lambda: None,
    "after_5_ms_of_a_tight_loop": lambda: spin(0.005),
    "after_1_ms_of_sleep": lambda: time.sleep(0.001),
    "after_5_ms_of_sleep": lambda: time.sleep(0.005),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", type=int, help="the core that it runs on; any by default")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    gc.disable()
    print(
        json.dumps(
            {work.__name__: {name: took_us(work, before) for name, before in BEFORE.items()} for work in (tight, mixed)}
        )
    )


if __name__ == "__main__":
    main()
