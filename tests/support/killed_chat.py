"""The chat service, killed at one moment: `KILL_FILE=… python -m tests.support.killed_chat --config FILE`.

Once that file is there, the next event that reaches the disk is followed by SIGKILL, before anybody is told of it.
"""

import os
import signal
import sys
from pathlib import Path

from rlhf_online.eventlog.committed import CommittedFile
from services.chat.__main__ import main

_write = CommittedFile.write


def _write_and_die(self: CommittedFile, records: int) -> None:
    _write(self, records)
    if Path(os.environ["KILL_FILE"]).exists():
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    CommittedFile.write = _write_and_die
    sys.exit(main())
