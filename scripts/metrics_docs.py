"""Writes docs/metrics.md from the catalogue; with `--check` says whether it is up to date."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry

from rlhf_online.metrics import ChatMetrics, MachineMetrics, RewardMetrics, TrainerMetrics
from rlhf_online.metrics.catalogue import Entry, Label

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
SCRAPED = {
    "Chat": "`GET /metrics` of services/chat, on its HTTP port",
    "Reward": "`reward.metrics_port` of services/reward",
    "Trainer": "`trainer.metrics_port` of services/trainer",
    "Every service": "with each of these",
}
HEAD = """# Metrics

Written by `python scripts/metrics_docs.py` from `rlhf_online/metrics`, where each metric is made; do not edit it. How
they are made, and why so: [decision 30](decisions/0030-metrics.md).

Each service is scraped by itself; labels such as `job` and `instance` are Prometheus' own. A scraper that asks for
OpenMetrics gets exemplars with trace ids. A histogram `NAME` is the series `NAME_bucket`, `NAME_count` and, unless it
may be negative, `NAME_sum`. Counters and histograms whose labels have closed sets of values stand at 0 from the start.

vLLM's own metrics stand beside these: `GET /metrics/engine` of chat hands on what the engine says, unchanged
([their meaning](https://docs.vllm.ai/en/latest/usage/metrics/)).
"""


def catalogue() -> dict[str, list[Entry]]:
    """The entries of each service, by its title."""
    return {
        "Chat": ChatMetrics(CollectorRegistry()).entries,
        "Reward": RewardMetrics(CollectorRegistry()).entries,
        "Trainer": TrainerMetrics(CollectorRegistry()).entries,
        "Every service": MachineMetrics(Path(), CollectorRegistry()).entries,
    }


def page() -> str:
    """What docs/metrics.md should hold."""
    return "".join([HEAD, *(part for title, entries in catalogue().items() for part in _section(title, entries))])


def _section(title: str, entries: list[Entry]) -> Iterator[str]:
    yield f"\n## {title}\n\nScraped at {SCRAPED[title]}.\n\n"
    yield "| name | type | unit | labels | what it says |\n| --- | --- | --- | --- | --- |\n"
    for entry in entries:
        labels = "; ".join(map(_label, entry.labels))
        yield f"| `{entry.name}` | {entry.type} | {entry.unit} | {labels} | {entry.text} |\n"


def _label(label: Label) -> str:
    return f"`{label.name}`: {', '.join(label.values) if label.values else label.bound}"


def main() -> int:
    """0, or 1 where the page is not what it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the page is out of date")
    if not parser.parse_args().check:
        PAGE.write_text(page())
        return 0
    if PAGE.read_text() == page():
        return 0
    print("docs/metrics.md is out of date: run python scripts/metrics_docs.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
