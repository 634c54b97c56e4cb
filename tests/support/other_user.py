"""Closes a state folder as another user than root: `python -m tests.support.other_user UID FOLDER`."""

import os
import sys
from pathlib import Path

from rlhf_online import process
from rlhf_online.errors import RlhfError
from rlhf_online.state import StateDir

if __name__ == "__main__":
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
    try:
        StateDir(Path(sys.argv[2])).close_to_others()
    except RlhfError as error:
        sys.exit(process.report_error(error))
