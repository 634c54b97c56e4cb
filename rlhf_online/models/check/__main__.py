"""`rlhf-online doctor MODEL`: what stands in the way of serving a model folder and teaching it, and what to do.

    python -m rlhf_online.models.check MODEL [--tuning lora|full] [--trunk] [--json]

Exit code 1 if anything refuses. `--json` prints one object: {"findings": [{"severity", "about", "what", "todo"}, …]}.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rlhf_online.models.check import Finding


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="rlhf-online doctor", description=__doc__)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--tuning", choices=("lora", "full"), default="lora", help="what is to be trained")
    parser.add_argument("--trunk", action="store_true", help="it is no policy, but what a reward model begins with")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    from rlhf_online.models.check.contents import inspect

    found = inspect(options.model, tuning=options.tuning, served=not options.trunk)
    refused = any(finding.severity == "refuse" for finding in found)
    if options.json:
        print(json.dumps({"findings": [asdict(finding) for finding in found]}))
    else:
        show(options.model, options.tuning, found)
    return int(refused)


def show(folder: Path, tuning: str, found: Sequence[Finding]) -> None:
    """The table that people read."""
    if not found:
        print(f"{folder} can be served, and learns with --tuning {tuning}")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("", "about", "the model", "what to do", box=box.SIMPLE, show_lines=True)
    for finding in found:
        table.add_row(finding.severity, finding.about, finding.what, finding.todo)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
