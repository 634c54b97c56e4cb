"""What is asked of the operating system about processes, asked of it here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOWER = "from rlhf_online.process import lower_priority as f; f(); f(); import os; print(os.nice(0))"


def test_lower_priority_lowers_the_priority_once() -> None:
    done = subprocess.run([sys.executable, "-c", LOWER], capture_output=True, text=True, check=True)
    assert int(done.stdout) == max(10, os.nice(0))


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="a kernel without autogroups")
def test_the_leader_of_a_session_lowers_its_session_and_nobody_elses() -> None:
    def lowered(*, session: bool) -> bool:
        show = LOWER + "; print(open('/proc/self/autogroup').read())"
        done = subprocess.run(
            [sys.executable, "-c", show], capture_output=True, text=True, check=True, start_new_session=session
        )
        return done.stdout.split()[-1] == "10"

    before = Path("/proc/self/autogroup").read_text()
    assert lowered(session=True)
    lowered(session=False)
    assert Path("/proc/self/autogroup").read_text() == before
