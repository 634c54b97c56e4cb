"""The chat service, killed at one moment: `KILL_FILE=… python -m tests.support.killed_chat --config FILE`.

Once that file is there, the next event that reaches the disk is followed by SIGKILL, before anybody is told of it.
"""

import os
import signal
import sys
from pathlib import Path

from rlhf_online.eventlog import folder
from services.chat.__main__ import main

_write_committed = folder.write_committed


def _write_and_die(descriptor: int, records: int, boot: bytes) -> None:
    _write_committed(descriptor, records, boot)
    if Path(os.environ["KILL_FILE"]).exists():
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    folder.write_committed = _write_and_die
    sys.exit(main())
