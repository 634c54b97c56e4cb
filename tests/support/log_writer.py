"""A process that writes to a local log until it is killed: `python -m tests.support.log_writer FOLDER THREADS ROUND`.

It prints "ready", then a line `thread number` for every record that was acknowledged; the record holds the same words
and the round. With FILE_LIMIT in the environment no file may grow beyond so many bytes: a full disk, file by file.
"""

import os
import random
import resource
import sys
import threading
from pathlib import Path

from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog.local import LocalLog


def payload(round_: str, thread: int, number: int) -> bytes:
    """The record; its filling is of another length each time, and known from its name."""
    name = f"{round_} {thread} {number} "
    return name.encode() + b"." * random.Random(name).randrange(3000)


def main() -> None:
    folder, threads, round_ = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    count = int(os.environ.get("COUNT", "1000000"))
    if limit := os.environ.get("FILE_LIMIT"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    log = LocalLog(folder, segment_bytes=int(os.environ.get("SEGMENT_BYTES", "200000")))
    os.write(1, b"ready\n")

    def write(thread: int) -> None:
        for number in range(count):
            try:
                log.append(payload(round_, thread, number)).result()
                os.write(1, f"{thread} {number}\n".encode())
            except LogUnavailable:
                os.write(1, f"refused {thread} {number}\n".encode())

    writers = [threading.Thread(target=write, args=(thread,)) for thread in range(threads)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    log.close()


if __name__ == "__main__":
    main()
