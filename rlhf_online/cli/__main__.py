"""`python -m rlhf_online.cli`: the same as the command `rlhf-online`."""

import sys

from rlhf_online.cli import main

if __name__ == "__main__":
    sys.exit(main())
