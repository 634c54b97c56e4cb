"""What 500 chat pods ask of the store of versions: `make bench BENCH=pods`, `ARGS="--store bucket --pods 500 --json"`.

Each pod is the product's follower and its reports (`engine/follower.py`, `engine/pod.py`) on a store of its own that
counts what it is asked for; only the engine is left out: a swap takes .1 s. All run in this process. Measured are the
store's calls a second and the bytes that they read and write while nothing changes; then how long it takes until the
last pod serves a version that was promoted, and one gone back to; and what becomes of a version that one pod in
a hundred cannot load, and of one that two in three cannot.

The store is a folder, or a bucket of an S3 server on this machine (moto's); of that the requests are counted that reach
it, and the bytes of its answers.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from rlhf_online.config import SwapSettings
from rlhf_online.engine.follower import POLLS_PER_S, VersionFollower
from rlhf_online.engine.loader import Prepared, VersionLoader
from rlhf_online.engine.pod import Pod
from rlhf_online.engine.swap import SwapResult, Weights
from rlhf_online.versions import pods
from rlhf_online.versions.bucket import Bucket
from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.object_store import ObjectStore
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.store import ManifestOf, Stray, VersionStore
from tests.benches.support.reports import note
from tests.support.object_server import BUCKET, environment, object_server
from tests.support.waiting import eventually

SWAP_S = 0.1
FILE_BYTES = 64 << 10
THREADS = 32
SERVED_S = 10.0
"""Until the last pod serves what was promoted, or gone back to."""


@dataclass
class Load:
    """What stores were asked for: calls by name, bytes of records and manifests read and written."""

    calls: Counter[str] = field(default_factory=Counter)
    read: int = 0
    written: int = 0
    conflicts: int = 0


class CountingStore:
    """A store that counts into `load`. Only what pods call."""

    def __init__(self, store: VersionStore, load: Load) -> None:
        self.load = load
        self._store = store

    def versions(self) -> list[str]:
        self.load.calls["versions"] += 1
        return self._store.versions()

    def contains(self, version: str) -> bool:
        self.load.calls["contains"] += 1
        return self._store.contains(version)

    def manifest(self, version: str) -> bytes:
        self.load.calls["manifest"] += 1
        content = self._store.manifest(version)
        self.load.read += len(content)
        return content

    def files(self, version: str) -> frozenset[str]:
        self.load.calls["files"] += 1
        return self._store.files(version)

    def materialise(self, version: str) -> Path:
        self.load.calls["materialise"] += 1
        return self._store.materialise(version)

    def file(self, version: str, path: str) -> Path:
        self.load.calls["file"] += 1
        return self._store.file(version, path)

    def mend(self, version: str) -> bool:
        self.load.calls["mend"] += 1
        return self._store.mend(version)

    def strays(self) -> list[Stray]:
        return self._store.strays()

    def remove(self, strays: Sequence[Stray]) -> None:
        self._store.remove(strays)

    def stage(self, version: str) -> Path:
        return self._store.stage(version)

    def put(self, version: str, staged: Path, manifest: ManifestOf) -> None:
        self._store.put(version, staged, manifest)

    def discard_files(self, version: str) -> None:
        self._store.discard_files(version)

    def read(self, key: str) -> str | None:
        self.load.calls[f"read {key.partition('/')[0]}"] += 1
        value = self._store.read(key)
        self.load.read += len(value or "")
        return value

    def place(self, key: str) -> str:
        return self._store.place(key)

    def replace(self, key: str, value: str, *, expected: str | None) -> bool:
        self.load.calls[f"replace {key.partition('/')[0]}"] += 1
        self.load.written += len(value)
        if done := self._store.replace(key, value, expected=expected):
            return done
        self.load.conflicts += 1
        return False


class SimulatedPod:
    """A pod without an engine; it cannot load the versions in `cannot`."""

    def __init__(self, number: int, store: VersionStore, cannot: set[str]) -> None:
        self.serving = ""
        self.last_good: Weights | None = None
        self.registry = Registry(store)
        self._cannot = cannot
        self.pod = Pod(store, f"pod-{number}", self, max_lag_s=60.0)
        self.follower = VersionFollower(cast("VersionLoader", self), self.registry, self.pod, SwapSettings())

    @property
    def state(self) -> str:
        return "ready" if self.serving else "waiting"

    async def prepare(self, version: str) -> Prepared:
        return await asyncio.to_thread(self._verify, version)

    def _verify(self, version: str) -> Prepared:
        self.registry.verify(version)
        return Prepared(Weights(version, self.registry.path(version)), {})

    async def load(self, prepared: Prepared) -> SwapResult:
        await asyncio.sleep(SWAP_S)
        version, previous = prepared.weights.version, self.serving
        if version in self._cannot:
            return SwapResult(version=version, previous=previous, ok=False, reason="CUDA out of memory")
        self.serving, self.last_good = version, prepared.weights
        return SwapResult(version=version, previous=previous, ok=True)

    async def run(self) -> None:
        telling = asyncio.create_task(self.pod.run())
        try:
            while True:
                await self.follower.swap(await self.follower.due())
        finally:
            telling.cancel()


def publish(registry: Registry) -> str:
    version = registry.reserve("policy")
    (registry.stage(version) / "adapter_model.safetensors").write_bytes(version.encode() * (FILE_BYTES // 16))
    registry.publish(Manifest(version=version, tuning="lora"))
    return version


Stores = Callable[[str], VersionStore]
"""A store of its own for the pod of that name."""


async def measure(
    options: argparse.Namespace, store: Stores, requests: Callable[[], list[tuple[str, str, int, int]]]
) -> dict[str, object]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    load, cannot = Load(), [set[str]() for _ in range(options.pods)]
    registry = Registry(store("trainer"))
    first = publish(registry)
    registry.promote(first)
    fleet = [
        SimulatedPod(number, CountingStore(store(f"pod-{number}"), load), cannot[number])
        for number in range(options.pods)
    ]
    running = [asyncio.create_task(one.run()) for one in fleet]
    try:
        await eventually(lambda: all(one.serving == first for one in fleet))
        note(f"{options.pods} pods serve the first version")
        await asyncio.sleep(1.5 * pods.REPORT_S)  # each has reported, and knows about how many there are
        requests()
        found = await _at_rest(options, load)
        found |= _of_server(options, requests())
        return found | await _changes(options, registry, fleet, cannot, load)
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def _at_rest(options: argparse.Namespace, load: Load) -> dict[str, object]:
    load.calls.clear()
    load.read = load.written = load.conflicts = 0
    await asyncio.sleep(options.seconds)
    a_second = {name: round(count / options.seconds, 2) for name, count in sorted(load.calls.items())}
    calls = sum(load.calls.values()) / options.seconds
    return {
        "pods": options.pods,
        "calls_per_s": round(calls, 1),
        "calls_per_s_and_pod": round(calls / options.pods, 3),
        "calls_by_name_per_s": a_second,
        "read_bytes_per_s": round(load.read / options.seconds),
        "written_bytes_per_s": round(load.written / options.seconds),
        "conflicts_per_s": round(load.conflicts / options.seconds, 2),
        "longest_poll_s": round(max(0.25, options.pods / POLLS_PER_S) * 1.2, 2),
    }


def _of_server(options: argparse.Namespace, seen: list[tuple[str, str, int, int]]) -> dict[str, object]:
    """What the S3 server was asked while nothing changed."""
    if not seen:
        return {}
    kinds = Counter(f"{method} {status}" for method, _, status, _ in seen)
    return {
        "requests_per_s": round(len(seen) / options.seconds, 1),
        "requests_by_kind_per_s": {kind: round(count / options.seconds, 2) for kind, count in sorted(kinds.items())},
        "answered_bytes_per_s": round(sum(size for *_, size in seen) / options.seconds),
    }


async def _changes(
    options: argparse.Namespace, registry: Registry, fleet: list[SimulatedPod], cannot: list[set[str]], load: Load
) -> dict[str, object]:
    first = str(registry.live("policy"))
    load.calls.clear()
    second = publish(registry)
    promoted_s = await _until_all(fleet, second, lambda: registry.promote(second))
    during = sum(load.calls.values())
    back_s = await _until_all(fleet, first, lambda: registry.rollback("policy", reason="the bench"))
    note("promoted and rolled back")
    few, most = publish(registry), publish(registry)
    sick = fleet[:: max(2, 100 if len(fleet) >= 100 else len(fleet))]
    for one in sick:
        cannot[fleet.index(one)].add(few)
    well = [one for one in fleet if one not in sick]
    few_s = await _until_all(well, few, lambda: registry.promote(few))
    await eventually(lambda: pods.tally(pods.reports(registry.store), few).could_not == len(sick), 60)
    kept = registry.status(few).state
    for number in range(len(fleet)):
        if number % 3:
            cannot[number].add(most)
    begin = time.monotonic()
    await asyncio.to_thread(registry.promote, most)
    await eventually(lambda: registry.status(most).state == "failed", 120)
    failed_s = time.monotonic() - begin
    await eventually(lambda: all(one.serving == few for one in well), 120)
    return {
        "promoted_until_last_pod_s": round(promoted_s, 2),
        "calls_of_a_promotion": during,
        "rolled_back_until_last_pod_s": round(back_s, 2),
        f"{len(sick)}_pods_cannot": f"{kept}, serves on the others after {few_s:.2f} s",
        "two_of_three_cannot": f"failed for all after {failed_s:.2f} s, all back after "
        f"{time.monotonic() - begin:.2f} s",
        "ok": kept == "live" and max(promoted_s, back_s, few_s) <= SERVED_S,
    }


async def _until_all(fleet: list[SimulatedPod], version: str, change: Callable[[], object]) -> float:
    begin = time.monotonic()
    await asyncio.to_thread(change)
    await eventually(lambda: all(one.serving == version for one in fleet), 120, f"all to serve {version}")
    return time.monotonic() - begin


def table(report: dict[str, object]) -> str:
    return "\n".join(f"{name:<32}{value}" for name, value in report.items())


def in_bucket(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    with object_server() as server:
        os.environ.update(environment(server.port))

        def store(pod: str) -> VersionStore:
            return ObjectStore(Bucket(f"s3://{BUCKET}/versions"), folder / pod, most=1 << 30)

        return asyncio.run(measure(options, store, server.requests))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("folder", "bucket"), default="folder")
    parser.add_argument("--pods", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long nothing changes")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-pods-") as folder:
        if options.store == "folder":
            report = asyncio.run(measure(options, lambda _: FolderStore(Path(folder) / "versions"), lambda: []))
        else:
            report = in_bucket(options, Path(folder))
    print(json.dumps(report) if options.json else table(report))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
