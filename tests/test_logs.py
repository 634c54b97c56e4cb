"""Log lines, written by a real process."""

import subprocess
import sys
from pathlib import Path

LEVELS = ("info", "warning", "error")
LOGS = """
import threading
import structlog
from rlhf_online import logs
logs.configure("chat")
for method in ("info", "warning", "error"):
    getattr(structlog.get_logger(), method)("swap", version="policy-000001")
thread = threading.Thread(target=lambda: structlog.get_logger().info("swap", version="policy-000002"))
thread.start()
thread.join()
print("went on")
"""


def test_a_log_on_a_full_disk_stops_nobody() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", LOGS], stdout=subprocess.PIPE, stderr=full, text=True, check=True)
    assert done.stdout == "went on\n"


def test_a_line_names_service_level_and_event_whichever_thread_it_is_of() -> None:
    done = subprocess.run([sys.executable, "-c", LOGS], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        *(f"level='{level}' service='chat' event='swap' version='policy-000001'" for level in LEVELS),
        "level='info' service='chat' event='swap' version='policy-000002'",
    ]
