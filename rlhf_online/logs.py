"""Structured log lines on stderr, as text or as JSON. No message text and no person's name is ever passed to a logger.

A line of a request has its `request_id`, and its `trace_id` where it has a trace. `logger` is the module that a line is
of; lines of libraries are of the logger that they chose. What is shown of which module is a setting that is followed
while the service runs (`follow`): it changes within FOLLOW_S, or at once on SIGHUP, and restarts nothing. On SIGUSR1 a
process writes where each of its threads stands: functions and lines, no values.
"""

import faulthandler
import inspect
import json
import logging
import math
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog
from structlog.typing import EventDict, Processor

from rlhf_online import tracing
from rlhf_online.errors import RlhfError

FOLLOW_S = 2.0
Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]


class Levels(Protocol):
    """What of the settings decides which lines are shown."""

    @property
    def log_level(self) -> Level: ...
    @property
    def log_levels(self) -> Mapping[str, Level]: ...


class Stderr:
    """Where lines go. One that cannot be written (a full disk, a reader that has gone) is lost, and whoever logged it
    goes on."""

    def msg(self, message: str) -> None:
        with suppress(OSError):
            print(message, file=sys.stderr, flush=True)

    debug = info = warning = error = critical = exception = msg


class _Logging:
    """What `configure` sets up, as structlog and logging themselves are: once for the process."""

    def __init__(self) -> None:
        self.service = ""
        self.format: Format = "text"
        self.level: Level = "info"
        self.modules: dict[str, int] = {}

    def least(self, module: str) -> int:
        """The least severe line shown of the module: as of the innermost package around it that is named."""
        while module:
            if module in self.modules:
                return self.modules[module]
            module = module.rpartition(".")[0]
        return _number(self.level)


_logging = _Logging()


def configure(
    service: str, level: Level = "info", format: Format = "text", levels: Mapping[str, Level] | None = None
) -> None:
    """Set the process's log format up: one line an event, the service's name in each, in every thread.

    `levels` are of modules, and of what is below them; `level` is that of all others.
    """
    _logging.service, _logging.format = service, format
    with suppress(OSError, ValueError):  # stderr is closed, or is no file
        faulthandler.register(signal.SIGUSR1, all_threads=True)
    root = logging.getLogger()
    root.handlers = [_FromLibraries()]
    _show(level, levels or {})


def configured() -> dict[str, Any]:
    """What a process that this one starts is to give to `configure`, beside its name."""
    levels = {module: logging.getLevelName(number).lower() for module, number in _logging.modules.items()}
    return {"level": _logging.level, "format": _logging.format, "levels": levels}


def follow(file: Path | None, read: Callable[[], Levels]) -> None:
    """Show from now on what the settings say, whenever their `file` has changed. Call it in the main thread.

    A file that cannot be read, or says what is no setting, changes nothing; a line says so.
    """
    if file is None:
        return
    changed = threading.Event()
    signal.signal(signal.SIGHUP, lambda *_: changed.set())
    threading.Thread(target=_follow, args=(file, _state(file), read, changed), name="log-levels", daemon=True).start()


def _follow(file: Path, seen: tuple[int, ...], read: Callable[[], Levels], changed: threading.Event) -> None:
    while True:
        asked = changed.wait(FOLLOW_S)
        changed.clear()
        if (state := _state(file)) == seen and not asked:
            continue
        seen = state
        try:
            found = read()
        except (RlhfError, OSError) as error:
            _say("the settings cannot be read, log levels stay", why=str(error))
            continue
        _show(found.log_level, found.log_levels)
        _say("log levels", log_level=found.log_level, log_levels=dict(found.log_levels))


def _say(event: str, **values: object) -> None:
    structlog.get_logger().warning(event, logger=__name__, **values)


def _state(file: Path) -> tuple[int, ...]:
    """Differs once the file was written, or replaced, as Kubernetes replaces what a ConfigMap mounts."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _show(level: Level, levels: Mapping[str, Level]) -> None:
    _logging.level = level
    for module in _logging.modules.keys() - levels.keys():
        logging.getLogger(module).setLevel(logging.NOTSET)
    _logging.modules = {module: _number(said) for module, said in levels.items()}
    for module, number in _logging.modules.items():
        logging.getLogger(module).setLevel(number)
    structlog.configure(
        processors=[
            _of_module,
            _named,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _renderer(_logging.format),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min([_number(level), *_logging.modules.values()])),
        logger_factory=Stderr,
        cache_logger_on_first_use=False,
    )


class _FromLibraries(logging.Handler):
    """Lines of Python's own logging, in the same form. Without a level of their own libraries tell of warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            said = {"logger": record.name, "exc_info": record.exc_info}
            level = min(record.levelno // 10 * 10, logging.CRITICAL)  # a library may have levels between ours
            structlog.get_logger().log(level, record.getMessage(), **said)
        except Exception:
            self.handleError(record)


def _of_module(logger: object, method: str, line: EventDict) -> EventDict:
    """Drops what is not to be seen of the module. (Of a library its own logger has decided.)"""
    if "logger" not in line:
        module = line["logger"] = _caller()
        if _number(method) < _logging.least(module):
            raise structlog.DropEvent
    return line


def _caller() -> str:
    frame = inspect.currentframe()
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != __name__ and not name.startswith("structlog."):
            return name
        frame = frame.f_back
    return ""


def _named(logger: object, method: str, line: EventDict) -> EventDict:
    """With the service, and the request that is worked on."""
    named: EventDict = {"service": _logging.service, **line}
    if request := tracing.named_request():
        named["request_id"] = request
    if trace := tracing.trace_id():
        named["trace_id"] = trace
    return named


def _renderer(format: Format) -> Processor:
    if format == "json":
        return _json
    return structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "service", "event"])


def _json(logger: object, method: str, line: EventDict) -> str:
    first = {name: line.pop(name) for name in ("timestamp", "level", "service", "event") if name in line}
    return json.dumps(_finite({**first, **line}), default=repr, ensure_ascii=False)


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they are told as words."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {str(name): _finite(inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_finite(inner) for inner in value]
        case _:
            return value


def _number(level: str) -> int:
    return getattr(logging, level.upper())
