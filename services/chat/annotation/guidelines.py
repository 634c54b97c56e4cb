"""How items are to be judged: the operator's file, as it stands now. It may be changed while people annotate."""

from pathlib import Path

import structlog

from rlhf_online.errors import ConfigError
from services.chat.annotation.items import Guidelines

MAX_BYTES = 256 << 10
MARKDOWN = (".md", ".markdown")


class GuidelinesFile:
    """The file of the setting `annotation_guidelines`, if it names one. Raises ConfigError if it cannot be read."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._last = "" if path is None else _read(path)

    def read(self) -> Guidelines:
        """A file that cannot be read now is as it was last."""
        if self._path is None:
            return {"text": "", "markdown": False}
        try:
            self._last = _read(self._path)
        except ConfigError as error:
            structlog.get_logger().warning("the guidelines are shown as they were", why=str(error))
        return {"text": self._last, "markdown": self._path.suffix.lower() in MARKDOWN}


def _read(path: Path) -> str:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ConfigError(f"annotation_guidelines: {path} has {size} bytes, at most {MAX_BYTES} are shown")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"annotation_guidelines: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"annotation_guidelines: {path} is no UTF-8 text: {error.reason}") from error
