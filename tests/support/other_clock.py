"""A clock that is off: what a process has to be started with for its own to be, while the machine's is right.

A library that is loaded before the C library shifts what it says of the time of day; timers go on as they are.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (clock == CLOCK_REALTIME && !failed) now->tv_sec += atol(getenv("CLOCK_IS_OFF_BY"));
    return failed;
}
"""


def off_by(seconds: int, folder: Path) -> dict[str, str]:
    """Variables for such a process; skips the test where there is no C compiler."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("a clock is shifted by a library that needs a C compiler (Debian: apt-get install gcc)")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clock.c").write_text(_SOURCE)
    library = folder / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "clock.c"), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return {"LD_PRELOAD": str(library), "CLOCK_IS_OFF_BY": str(seconds)}
