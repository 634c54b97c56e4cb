"""The chat service: `python -m services.chat --config FILE`."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import uvloop

from rlhf_online import config, logs, process, tracing
from rlhf_online.config import ChatSettings
from rlhf_online.errors import RlhfError
from rlhf_online.state import StateDir


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 after a signal, 1 or 2 with a message for what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m services.chat", description="Chat, feedback and the engine.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file of ChatSettings")
    options = parser.parse_args(argv)
    try:
        settings = config.load(ChatSettings, options.config)
        if settings.die_with_parent:
            process.die_with_parent()
        process.raise_open_files()
        StateDir(settings.state_dir).close_to_others()
        logs.configure("chat", settings.log_level, settings.log_format, settings.log_levels)
        logs.follow(options.config, lambda: config.load(ChatSettings, options.config))
        tracing.configure("chat", settings.tracing.endpoint, settings.tracing.sample)
        # gRPC reads this when it is imported. The engine's process is forked off and replaced at once, so gRPC's fork
        # handlers have nothing to protect, and they can break its poller in this process.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        # Its log is lines of its own about bytes that anybody may send; errors of ours it raises.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from services.chat.service import run

        process.favour_event_loop()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
        tracing.close()
    except RlhfError as error:
        return process.report_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
