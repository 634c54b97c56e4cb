"""The real supervisor over fake services, as a process: `python -m tests.support.fake_standalone --config FILE`.

Names of services after that are of those that are real.
"""

import sys
from functools import partial
from pathlib import Path

from rlhf_online import config, process
from rlhf_online.errors import RlhfError
from services.standalone.settings import StandaloneSettings
from services.standalone.supervisor import Commands, Supervisor, python_modules

if __name__ == "__main__":
    fake = [sys.executable, "-m", "tests.support.fake_service"]
    commands: Commands = {"chat": [*fake, "chat"], "reward": [*fake, "reward"], "trainer": [*fake, "trainer"]}
    commands |= {name: command for name, command in python_modules().items() if name in sys.argv[3:]}
    try:
        settings = config.load(StandaloneSettings, Path(sys.argv[2]))
        process.die_with_parent()
        say = partial(print, flush=True)
        Supervisor(
            settings,
            commands=commands,
            say=say,
            backoff_s=0.02,
            examine=lambda settings: [],
            probe_of=lambda model: (),
        ).run()
    except RlhfError as error:
        sys.exit(process.report_error(error))
