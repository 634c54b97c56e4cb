"""A thousand wrong versions against a real vLLM: `make bench BENCH=corrupt_versions`, `ARGS="--first 60 --json"`.

Each is a version of the tiny model, wrong in one way (`tests/support/corruption.py`) that a seed draws: published
so, with hashes that match, as by a trainer that wrote wrong bytes; or changed after it was published, as by a disk. It
is made the live one, and the engine's host, which follows the registry, has to refuse it and to go back, while answers
are being written. None may be served for a single token: every answer's log-probs are compared with transformers' for
the good weights. The table says which defence caught which kind.

A single flipped bit may change less than the probe can tell from rounding. Where a trainer published it so, nothing can
know; how often the probe does is measured apart (`one_small_flip_caught_by_probe`), without serving it.
"""

import argparse
import asyncio
import json
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rlhf_online.engine.host import EngineHost
from rlhf_online.engine.swap import Weights, check_probe
from rlhf_online.errors import SwapFailed
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Change as VersionChange
from rlhf_online.versions.manifest import Manifest, ProbeSequence
from rlhf_online.versions.registry import Registry
from tests.benches.support.reports import note
from tests.support.corruption import KINDS, ONE_SMALL_FLIP, leave_folder
from tests.support.engine import PROBE_TOKENS, Answer, publish, recompute_all, running_host, stream
from tests.support.waiting import eventually

STREAMS = 4
EXACT = 1e-3
ALONE = 200
"""Single flipped bits that the probe alone is asked about."""
LEAVES = "a manifest that leaves its folder"
LAYERS = {
    "manifest": r"its manifest cannot be read|its manifest names",
    "hash": r"SHA-256|is missing or not \d+ bytes",
    "tensors": r"is missing \(|is no tensor|has shape|has type|cut short|header|bytes long|no tensors|index of its",
    "values": r"not finite|2\*\*20",
    "tokenizer": r"tokenizer\.json",
    "probe": r"log-probs",
}
"""What catches a version, by what the refusal says."""


@dataclass
class Found:
    """What became of the versions: {kind: how often each layer caught it}, and those that were served."""

    caught: dict[str, Counter[str]] = field(default_factory=dict)
    served: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    refused: int = 0


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    base, good = folder / "base", folder / "good"
    for path in (base, good):
        write_tiny_model(path, weights_seed=1)
    probe = tuple(
        ProbeSequence(token_ids=tuple(tokens), logprobs=tuple(row))
        for tokens, row in zip(PROBE_TOKENS, recompute_all(good, PROBE_TOKENS), strict=True)
    )
    found = Found()
    begin = time.monotonic()
    async with running_host(folder, base, threads=1) as host:
        served = publish(host.registry, good)
        await eventually(lambda: host.serving == served)
        note("the engine serves the good version")
        stop = asyncio.Event()
        asking = [asyncio.create_task(_ask(host, found, stop)) for _ in range(STREAMS)]
        await _offer_all(options, host, Wrong(open_registry(folder / "state" / "versions"), good, probe), found)
        stop.set()
        await asyncio.gather(*asking)
        assert host.serving == served and host.state == "ready"
    wrong = await asyncio.to_thread(_written_by_another, good, found.answers)
    noticed = await asyncio.to_thread(_noticed_alone, folder, good, probe, options.seed)
    whole = sum(len(answer.token_ids) == 110 for answer in found.answers)
    return {
        "versions": found.refused + len(found.served),
        "refused": found.refused,
        "served": len(found.served),
        "answers": len(found.answers),
        "answers_cut_short": len(found.answers) - whole,
        "tokens_of_other_weights": wrong,
        "one_small_flip_caught_by_probe": f"{noticed} of {ALONE}",
        "wall_s": round(time.monotonic() - begin),
        "caught_by": {kind: dict(counts) for kind, counts in sorted(found.caught.items())},
        "ok": not found.served and wrong == 0 and whole == len(found.answers) and len(found.answers) > 0,
    }


async def _ask(host: EngineHost, found: Found, stop: asyncio.Event) -> None:
    draw = random.Random(id(stop))
    while not stop.is_set():
        found.answers.append(Answer((1, draw.randrange(20, 60), 3)))
        await stream(host, found.answers[-1])


async def _offer_all(options: argparse.Namespace, host: EngineHost, wrong: "Wrong", found: Found) -> None:
    """Promote one wrong version after the other; each has to be refused before the next."""
    draw = random.Random(options.seed)
    kinds = [*((kind, before) for kind in KINDS for before in (True, False)), (LEAVES, False)]
    changes: asyncio.Queue[VersionChange] = asyncio.Queue()

    async def note_change(change: VersionChange) -> None:
        changes.put_nowait(change)

    host.on_change.append(note_change)
    for number in range(options.first):
        kind, before = kinds[number % len(kinds)]
        version = await asyncio.to_thread(wrong.promote, kind, draw, before=before)
        change = await asyncio.wait_for(changes.get(), 120)
        while change.version != version:  # of the good one, which began to serve just before
            change = await asyncio.wait_for(changes.get(), 120)
        name = f"{kind}, {'as published' if before else 'after publication'}"
        if (change.version, change.state) == (version, "failed"):
            layer = next((layer for layer, said in LAYERS.items() if re.search(said, change.reason)), change.reason)
            found.caught.setdefault(name, Counter())[layer] += 1
            found.refused += 1
        else:
            found.served.append(f"{version}: {name}")
        wrong.forget(version)
        if (number + 1) % 100 == 0:
            note(f"{number + 1} of {options.first}, served {len(found.served)}, answers {len(found.answers)}")
    host.on_change.remove(note_change)


@dataclass
class Wrong:
    """The trainer's side: wrong versions, with the probe of the good weights."""

    registry: Registry
    good: Path
    probe: tuple[ProbeSequence, ...]

    def promote(self, kind: str, draw: random.Random, *, before: bool) -> str:
        """A version that is wrong in that way and the live one; changed `before` it was published, or afterwards."""
        version = self.registry.reserve("policy")
        staged = self.registry.stage(version)
        shutil.copytree(self.good, staged, dirs_exist_ok=True)
        if before:
            KINDS[kind](staged, draw)
        self.registry.publish(Manifest(version=version, tuning="full", probe=self.probe))
        if kind == LEAVES:
            leave_folder(self.registry.path(version), draw)
        elif not before:
            KINDS[kind](self.registry.path(version), draw)
        self.registry.promote(version)
        return version

    def forget(self, version: str) -> None:
        """Leave nothing of it, so that the thousandth finds a registry as small as the first did."""
        shutil.rmtree(self.registry.path(version))
        Path(self.registry.store.place(f"states/{version}.json")).unlink()


def _written_by_another(good: Path, answers: Sequence[Answer]) -> int:
    """Tokens whose log-prob is not the good weights'."""
    rows = recompute_all(good, [(*answer.prompt_ids, *answer.token_ids) for answer in answers])
    wrong = 0
    for answer, row in zip(answers, rows, strict=True):
        wrong += int((np.abs(np.subtract(answer.logprobs, row[2:])) > EXACT).sum())
    return wrong


def _noticed_alone(folder: Path, good: Path, probe: tuple[ProbeSequence, ...], seed: int) -> int:
    """How many versions with one smallest exponent bit flipped do not pass the probe, as transformers computes it."""
    draw, noticed = random.Random(seed), 0
    for _ in range(ALONE):
        flipped = folder / "flipped"
        shutil.copytree(good, flipped)
        ONE_SMALL_FLIP(flipped, draw)
        try:
            check_probe(Weights("flipped", flipped, probe), recompute_all(flipped, PROBE_TOKENS), tolerance=EXACT)
        except SwapFailed:
            noticed += 1
        shutil.rmtree(flipped)
    return noticed


def table(report: dict[str, object]) -> str:
    layers = [*LAYERS]
    caught = report["caught_by"]
    assert isinstance(caught, dict)
    lines = [f"{name:<32}{value}" for name, value in report.items() if name != "caught_by"]
    lines += ["", f"{'caught by':<56}" + "".join(f"{layer:>10}" for layer in layers)]
    for kind, counts in caught.items():
        lines.append(f"{kind:<56}" + "".join(f"{counts.get(layer, 0) or '·':>10}" for layer in layers))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=1000, help="how many versions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-corrupt-") as folder:
        report = asyncio.run(measure(options, Path(folder)))
    print(json.dumps(report) if options.json else table(report))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
