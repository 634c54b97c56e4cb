"""A trainer's lease in a process of its own: `python -m tests.support.lease_holder FOLDER ACCOUNT NAME DURATION_S`.

It says "epoch N" once it has the Lease object, commits a checkpoint for each line that it is sent and says "committed".
The end of its input is a clean end; one that may not go on ends as a trainer does, with exit code 1 and a sentence.
"""

import signal
import sys
import threading
from pathlib import Path

from rlhf_online import process
from rlhf_online.errors import RlhfError
from rlhf_online.eventlog.gap import Place
from rlhf_online.training.checkpoint import CheckpointPart, Checkpoints
from rlhf_online.training.lease import KubernetesLease, LeaseObject
from rlhf_online.training.retrier import Stopped


def main() -> int:
    folder, account, name, duration_s = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print("started", flush=True)
    try:
        with KubernetesLease.take(folder, LeaseObject.of_pod(name, account), duration_s, stop) as lease:
            print(f"epoch {lease.epoch}", flush=True)
            checkpoints = Checkpoints(folder, 9, lease)
            for number, _ in enumerate(sys.stdin):
                place = Place("a log", {"local": number})
                checkpoints.save({"epoch": lease.epoch}, {"intake": CheckpointPart({}, {"n": number})}, {}, place)
                print("committed", flush=True)
    except Stopped:
        return 0
    except RlhfError as error:
        return process.report_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
