"""The forwarder's process: `python -m rlhf_online.eventlog.kafka.forwarder_process`, started by `sink`.

It ends when its standard input does, that is with whoever started it, however that one ended; until an earlier one has
let go of the spool it waits. It runs at a lower priority than the chat service where cores are scarce.
"""

import json
import select
import signal
import sys
from pathlib import Path

from rlhf_online import locks, logs, process, tracing
from rlhf_online.config import KafkaSettings
from rlhf_online.errors import RlhfError
from rlhf_online.eventlog.kafka.cluster import Cluster
from rlhf_online.eventlog.kafka.forwarder import Forwarder
from rlhf_online.eventlog.spool import Spool

POLL_S = 0.05


def main() -> int:
    # An interrupt at a terminal reaches all processes; this one ends after the log's writer, which tells it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.lower_priority()
    given = json.loads(sys.stdin.readline())
    logs.configure("forwarder", **given["logs"])
    if given["tracing"] is not None:
        tracing.configure("forwarder", **given["tracing"])
    folder = Path(given["folder"])
    cluster = Cluster(given["servers"], given["prefix"], KafkaSettings.model_validate(given["settings"]))
    try:
        while (lock := locks.try_acquire(folder / "forwarder.lock")) is None:
            if _hung_up(POLL_S):
                return 0
        with lock:
            _ship(Forwarder(Spool(folder), cluster))
    except RlhfError as error:
        return process.report_error(error)
    return 0


def _ship(forwarder: Forwarder) -> None:
    said = None
    while not _hung_up(POLL_S):
        if (progress := forwarder.progress()) != said:
            print(json.dumps(progress), flush=True)
            said = progress
    forwarder.close()
    tracing.close()
    print(json.dumps(forwarder.progress()), flush=True)


def _hung_up(timeout_s: float) -> bool:
    """Wait for standard input to end, `timeout_s` at most."""
    readable, _, _ = select.select([sys.stdin], [], [], timeout_s)
    return bool(readable)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # nobody listens any more
        sys.exit(0)
