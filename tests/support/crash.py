"""A kill at a chosen line, without a process."""


class Crash(BaseException):
    """Raised by a test where the process is to die: no `except Exception` of the product may stop it."""
