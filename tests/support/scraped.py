"""What of a running standalone there is to scrape, with the labels that a cluster's Prometheus would set."""

from rlhf_online.state import StateDir
from services.standalone.children import read_ready, ready_file
from tests.support.dashboards import CHOSEN
from tests.support.prometheus import Target

LABELS = {name: CHOSEN[name] for name in ("namespace", "release")}


def targets(state: StateDir) -> list[Target]:
    """The three services and the engine, whose own metrics chat hands on. Empty until all have written their ports."""
    found = {name: read_ready(ready_file(state, name)) for name in ("chat", "reward", "trainer")}
    if not all(found.values()):
        return []
    made = [("chat", "http", "/metrics"), ("engine", "http", "/metrics/engine")]
    made += [("reward", "metrics", "/metrics"), ("trainer", "metrics", "/metrics")]
    ports = {**found, "engine": found["chat"]}
    return [
        Target(job, f"127.0.0.1:{(ports[job] or {})[port]}", path, labels={**LABELS, "pod": f"{job}-0"})
        for job, port, path in made
    ]
