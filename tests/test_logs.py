"""Log lines, written by a real process."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import pytest

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
JSON = """
import logging
import structlog
from rlhf_online import logs, tracing
logs.configure("chat", format="json")
log = structlog.get_logger()
log.info("learned", loss=float("nan"), weights={"helpful": float("inf")}, ids=(1, 2), path=object)
tracing.enter("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "mine-7")
log.info("in a request")
logging.getLogger("kafka.conn").warning("broker %s is away", "b:1")
logging.getLogger("kafka.conn").info("not shown")
logging.getLogger("vllm").log(35, "between ours")
try:
    raise KeyError("x")
except KeyError:
    logging.getLogger("asyncio").exception("two\\nlines")
"""
MODULES = """
import logging
import types
import structlog
from rlhf_online import logs
levels = {"services": "error", "services.chat.keys": "debug", "kafka": "info"}
logs.configure("chat", "warning", "json", levels)
for module in ("rlhf_online.engine", "services.chat", "services.chat.keys.file", "services.chat.keysmith"):
    there = {"__name__": module, "log": structlog.get_logger()}
    for level in ("debug", "info", "warning", "error"):
        exec(f"log.{level}('{level}')", there)
for module in ("kafka.conn", "urllib3"):
    for level in ("debug", "info", "warning"):
        getattr(logging.getLogger(module), level)(level)
"""
FOLLOWS = """
import sys
from pathlib import Path
import structlog
from rlhf_online import config, logs
from rlhf_online.config import RewardSettings
path = Path(sys.argv[1])
read = lambda: config.load(RewardSettings, path)
settings = read()
logs.configure("reward", settings.log_level, "json", settings.log_levels)
logs.follow(path, read)
for line in sys.stdin:
    structlog.get_logger().debug(line.strip())
    structlog.get_logger().info(line.strip())
"""


STACKS = """
import signal
from rlhf_online import logs
logs.configure("trainer")
def somewhere(secret):
    signal.raise_signal(signal.SIGUSR1)
somewhere("what somebody wrote")
print("went on")
"""


def lines_of(program: str) -> list[dict]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [json.loads(line, parse_constant=pytest.fail) for line in done.stderr.splitlines()]


def test_a_log_on_a_full_disk_stops_nobody() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", LOGS], stdout=subprocess.PIPE, stderr=full, text=True, check=True)
    assert done.stdout == "went on\n"


def test_a_line_names_service_level_event_and_module_whichever_thread_it_is_of() -> None:
    done = subprocess.run([sys.executable, "-c", LOGS], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        *(f"level='{level}' service='chat' event='swap' version='policy-000001' logger='__main__'" for level in LEVELS),
        "level='info' service='chat' event='swap' version='policy-000002' logger='__main__'",
    ]


def test_json_is_json_whatever_is_told_and_names_the_request() -> None:
    """One object a line, of ours and of libraries', without NaN, which is no JSON."""
    learned, asked, library, between, failed = lines_of(JSON)
    assert list(learned)[:4] == ["timestamp", "level", "service", "event"]
    assert (learned["loss"], learned["weights"], learned["ids"]) == ("nan", {"helpful": "inf"}, [1, 2])
    assert "request_id" not in learned and "trace_id" not in learned
    assert (asked["request_id"], asked["trace_id"]) == ("mine-7", "4bf92f3577b34da6a3ce929d0e0e4736")
    assert (library["event"], library["level"], library["logger"]) == ("broker b:1 is away", "warning", "kafka.conn")
    assert (between["event"], between["level"]) == ("between ours", "warning")
    assert failed["event"] == "two\nlines" and "KeyError" in failed["exception"]


def test_each_module_has_the_level_of_the_innermost_package_that_is_named() -> None:
    shown: dict[str, list[str]] = {}
    for line in lines_of(MODULES):
        shown.setdefault(line["logger"], []).append(line["event"])
    assert shown == {
        "rlhf_online.engine": ["warning", "error"],
        "services.chat": ["error"],
        "services.chat.keys.file": ["debug", "info", "warning", "error"],
        "services.chat.keysmith": ["error"],
        "kafka.conn": ["info", "warning"],
        "urllib3": ["warning"],
    }


def test_on_a_signal_a_process_says_where_its_threads_stand_and_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", STACKS], capture_output=True, text=True, check=True)
    assert "in somewhere" in done.stderr and done.stdout == "went on\n"
    assert "what somebody wrote" not in done.stderr


class Running:
    """A process that logs what it is told at two levels, and the lines that it wrote."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: Queue[dict] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.put(json.loads(line))

    def say(self, event: str, levels: int) -> list[str]:
        """The levels at which it was shown; so many are waited for."""
        assert self.process.stdin is not None
        self.process.stdin.write(event + "\n")
        self.process.stdin.flush()
        return [line["level"] for line in [self.lines.get(timeout=20) for _ in range(levels)] if line["event"] == event]


@contextmanager
def following(path: Path) -> Iterator[Running]:
    command = [sys.executable, "-c", FOLLOWS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        try:
            yield Running(process)
        finally:
            process.stdin.close()
    assert process.returncode == 0


def test_levels_follow_the_settings_file_and_what_is_wrong_in_it_changes_nothing(tmp_path: Path) -> None:
    path, mounted = tmp_path / "reward.toml", tmp_path / "data"
    values = 'state_dir = "s"\nmodel = "m"\n'
    mounted.write_text(values)
    path.symlink_to(mounted)  # as a ConfigMap is mounted
    with following(path) as running:
        assert running.say("one", 1) == ["info"]

        mounted.write_text(values + "[log_levels]\n__main__ = 'loud'\n")
        refused = running.lines.get(timeout=20)
        assert refused["event"] == "the settings cannot be read, log levels stay"
        assert "log_levels.__main__" in refused["why"] and "'loud'" in refused["why"]
        assert running.say("two", 1) == ["info"]

        other = tmp_path / "other"
        other.write_text(values + "log_level = 'warning'\n")
        path.unlink()
        path.symlink_to(other)
        os.kill(running.process.pid, signal.SIGHUP)
        assert running.lines.get(timeout=20)["log_level"] == "warning"
        assert running.say("unseen", 0) == []
        path.unlink()
        path.symlink_to(mounted)
        mounted.write_text(values + "log_level = 'debug'\n")
        assert running.lines.get(timeout=20)["log_level"] == "debug"
        assert running.say("three", 2) == ["debug", "info"]
