"""How long the chart's profiles take on a simulated cluster: `python -m tests.benches.cluster [--json]`.

Seconds of `helm --wait` from the command to its end, when all pods are ready. Pods are pretended, so this measures
the chart's own part: hooks, ordering, rollouts. `cluster_s`: until the cluster itself is there. `ok`: no install takes
more than 60 s.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benches.support.figures import show
from tests.ops.cluster.releases import PROFILES, WAIT, release
from tests.support.simulated_cluster import Cluster

INSTALL_S = 60


def seconds(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return round(time.perf_counter() - begin, 1)


def measure(folder: Path) -> dict[str, float | bool]:
    figures: dict[str, float | bool] = {}
    cluster = Cluster(folder)
    figures["cluster_s"] = seconds(cluster.__enter__)
    try:
        for profile in PROFILES:
            with release(cluster, cluster.namespace(), profile=profile) as chat:
                figures[f"{profile}_install_s"] = seconds(chat.install)
                figures[f"{profile}_upgrade_s"] = seconds(lambda: chat.upgrade({"logLevel": "warning"}))
                figures[f"{profile}_rollback_s"] = seconds(lambda: chat.run("rollback", chat.name, "1", *WAIT))
    finally:
        cluster.close()
    figures["ok"] = all(value <= INSTALL_S for name, value in figures.items() if name.endswith("install_s"))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        show(measure(Path(folder)), as_json=options.json)


if __name__ == "__main__":
    main()
