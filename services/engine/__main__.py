"""An engine of its own, for a chat service in another container of the pod: `python -m services.engine --config FILE`.

It becomes vLLM's server on a unix socket, with the arguments that the chat service gives an engine that it starts
itself. With full weights it begins with random ones: the chat service brings the live version in, at its start and at
the engine's.
"""

import argparse
import os
import stat
import sys
from pathlib import Path

from rlhf_online import config, process
from rlhf_online.config import EngineServerSettings
from rlhf_online.engine import child
from rlhf_online.errors import RlhfError, StartRefused
from rlhf_online.state import OTHERS


def main(argv: list[str] | None = None) -> int:
    """Does not return once vLLM runs; 1 to 3 with a message for what went wrong before."""
    parser = argparse.ArgumentParser(prog="python -m services.engine", description="vLLM for the chat service.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file of EngineServerSettings")
    options = parser.parse_args(argv)
    try:
        settings = config.load(EngineServerSettings, options.config)
        dummy_weights = settings.tuning == "full"
        child.check_model(settings, dummy_weights=dummy_weights)
        device = child.resolve_device(settings)
        _make_way(settings.socket)
    except RlhfError as error:
        return process.report_error(error)
    command = child.command(settings, device, settings.socket, dummy_weights=dummy_weights)
    os.execve(command[0], command, child.environment(settings, device))


def _make_way(socket: Path) -> None:
    """A folder that is closed to other users, without the socket of an earlier life. Raises StartRefused."""
    os.umask(OTHERS)
    folder = socket.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if stat.S_IMODE(folder.stat().st_mode) & OTHERS:
            folder.chmod(0o700)
        socket.unlink(missing_ok=True)
    except OSError as error:
        raise StartRefused(
            f"socket: {folder} cannot be closed to other users, who could load weights ({error.strerror}): name a "
            f"folder below it, {folder / 'engine' / socket.name}"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
