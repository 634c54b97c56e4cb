"""A kill at a chosen line, without a process."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

When = Literal["before", "after"]


class Crash(BaseException):
    """Raised by a test where the process is to die: no `except Exception` of the product may stop it."""


@dataclass
class Kill:
    """The process dies at a step of the product, before it is done or after, once this is `armed`."""

    when: When
    armed: bool = False

    def at(self, owner: Any, name: str, patch: pytest.MonkeyPatch) -> None:
        """The step: a function of a module or of a class."""
        real = getattr(owner, name)

        def killed(*args: Any, **kwargs: Any) -> Any:
            if not self.armed:
                return real(*args, **kwargs)
            if self.when == "after":
                real(*args, **kwargs)
            raise Crash

        patch.setattr(owner, name, killed)
