"""The chat service with as few open files as it takes: `python -m tests.support.few_files --config FILE`."""

import resource
import sys

from services.chat.__main__ import main

OPEN_FILES = 256

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    sys.exit(main())
