"""What is asked of the operating system about processes, asked of it here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_online.errors import ConfigError
from rlhf_online.process import OWN_FILES, connection_budget

LOWER = "from rlhf_online.process import lower_priority as f; f(); f(); import os; print(os.nice(0))"


FAVOUR = "from rlhf_online.process import favour_event_loop as f; f(); import gc, sys; print(sys.getswitchinterval())"


def test_a_thread_that_computes_gives_way_to_the_event_loop_early_and_imports_are_no_garbage() -> None:
    script = f"{FAVOUR}; print(gc.get_freeze_count() > 0 and len(gc.get_objects(2)) == 0, gc.get_threshold()[0])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.0005", "True", "10000"]


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


CATCHES_SIGTERM = """
import signal
from rlhf_online.process import die_with_parent
signal.signal(signal.SIGTERM, signal.SIG_IGN)
die_with_parent(by=signal.SIGKILL)
print("up", flush=True)
signal.sigwait([signal.SIGUSR1])
"""
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {CATCHES_SIGTERM!r}]); sys.stdin.read()"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux sends it")
def test_a_child_that_catches_sigterm_dies_with_its_parent_by_sigkill() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "up\n"
        parent.kill()
        assert parent.stdout.read() == "", "the child holds the pipe until it has ended"


def test_descriptors_are_kept_for_a_services_own_files() -> None:
    assert connection_budget(1024, kinds=3) == 298
    assert connection_budget(1024, kinds=1) == 1024 - OWN_FILES
    with pytest.raises(ConfigError, match=r"may open 150 files, and needs 176: raise the limit \(ulimit -n\)"):
        connection_budget(150, kinds=3)
