"""Structured log lines on stderr. No message text and no person's name is ever passed to a logger."""

import logging
import sys
from contextlib import suppress

import structlog
from structlog.typing import EventDict


class Stderr:
    """Where lines go. One that cannot be written (a full disk, a reader that has gone) is lost, and whoever logged it
    goes on."""

    def msg(self, message: str) -> None:
        with suppress(OSError):
            print(message, file=sys.stderr, flush=True)

    debug = info = warning = error = critical = exception = msg


def configure(service: str, level: str = "info") -> None:
    """Set the process's log format up: one line an event, `key=value`, the service's name first, in every thread."""

    def named(logger: object, method: str, line: EventDict) -> EventDict:
        return {"service": service, **line}

    structlog.configure(
        processors=[
            named,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "service", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=Stderr,
        cache_logger_on_first_use=False,
    )
