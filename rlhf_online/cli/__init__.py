"""The command `rlhf-online`. Importing this imports neither torch nor a service: those are processes that it starts."""

import sys

from rlhf_online import process
from rlhf_online.errors import RlhfError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; what the project raises on purpose is shown as one message."""
    import typer
    from typer.exceptions import TyperException

    from rlhf_online.cli.app import app

    try:
        code = app(args=arguments, prog_name="rlhf-online", standalone_mode=False)
    except RlhfError as error:
        return process.report_error(error)
    except typer.Exit as end:
        return end.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # `rlhf-online versions list | head`
        sys.stderr.close()
        return 0
    except TyperException as error:
        show = getattr(error, "show", None)
        show() if show is not None else print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    return code if isinstance(code, int) else 0
