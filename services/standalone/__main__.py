"""`python -m services.standalone --config FILE` (StandaloneSettings): chat, reward and trainer on this machine."""

import argparse
import sys
from functools import partial
from pathlib import Path

from rlhf_online import config, process
from rlhf_online.errors import RlhfError
from services.standalone.settings import StandaloneSettings
from services.standalone.supervisor import Supervisor


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.standalone", description=__doc__)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings, TOML; RLHF_UP__… variables override them"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one setting, over file and variables"
    )
    parser.add_argument(
        "--option",
        nargs=2,
        action="append",
        default=[],
        metavar=("FLAG", "NAME=VALUE"),
        help="one setting that was given to `rlhf-online up` as --FLAG; --set wins over it",
    )
    options = parser.parse_args()
    given = [*((f"--{flag}", assignment) for flag, assignment in options.option), *options.set]
    try:
        settings = config.load(StandaloneSettings, options.config, given)
        if settings.die_with_parent:
            process.die_with_parent()
        Supervisor(settings, say=partial(print, flush=True)).run()
    except RlhfError as error:
        return process.report_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
