"""`python -m scripts.dashboards` writes the dashboards into the chart; --check only says what is out of date."""

import argparse
import sys
from pathlib import Path

from scripts.dashboards import capacity, chat, feedback, learning, overview, versions
from scripts.dashboards.grafana import render

FILES = Path(__file__).parents[2] / "helm" / "rlhf-online" / "files" / "dashboards"
DASHBOARDS = tuple(module.DASHBOARD for module in (overview, chat, feedback, learning, versions, capacity))


def rendered() -> dict[Path, str]:
    """The file of each dashboard, and what it should hold."""
    return {FILES / f"{dashboard.uid.removeprefix('rlhf-')}.json": render(dashboard) for dashboard in DASHBOARDS}


def stale() -> list[Path]:
    """Files that are not as they should be, and files that no dashboard makes."""
    wanted = rendered()
    differ = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    return differ + sorted(set(FILES.glob("*.json")) - set(wanted))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file is out of date")
    if parser.parse_args().check:
        for path in (found := stale()):
            print(f"{path.name} is out of date: run python -m scripts.dashboards", file=sys.stderr)
        return 1 if found else 0
    FILES.mkdir(parents=True, exist_ok=True)
    for path in set(FILES.glob("*.json")) - set(rendered()):
        path.unlink()
    for path, text in rendered().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
