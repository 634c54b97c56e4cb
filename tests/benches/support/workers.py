"""Tasks for some processes with one torch thread each, two of them on two cores."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

Task = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of a module, and its arguments."""


def workers(
    count: int, tasks: Iterable[Task], then: Callable[[Any], Iterable[Task]] = lambda found: ()
) -> Iterator[Any]:
    """What the tasks return, as it comes; `then` says which further tasks a result makes possible."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: set[Future[Any]] = {pool.submit(function, *arguments) for function, arguments in tasks}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                found = future.result()
                waiting |= {pool.submit(function, *arguments) for function, arguments in then(found)}
                yield found
