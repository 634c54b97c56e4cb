"""May a version be loaded into this pod's engine? `preflight`'s checks, against what this pod has.

A version that passed is not read again as long as its files are those that were read, by their inodes, sizes and times:
so going back to the version before takes as long with large models as with small ones, but for what the page cache has
lost of it, which is read while the engine still answers. Its probe is made every time.
"""

import os
from pathlib import Path

from rlhf_online.config import EngineSettings
from rlhf_online.engine import preflight
from rlhf_online.engine.reading import warm
from rlhf_online.engine.swap import Weights
from rlhf_online.errors import VersionUnfit
from rlhf_online.models.tensor_headers import has_weights
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.weight_files import weight_files

KNOWN = 8
"""Versions that are remembered to have passed."""

Traces = frozenset[tuple[str, int, int, int, int]]
"""Of each file of a folder: path, inode, size, time of its content's change and of any change (ns). The last one is 0
for a file that other folders share (`versions.local_copies`): one link more or less to it is a change, too."""


class Fitness:
    """Of the registry's versions for an engine with these settings."""

    def __init__(self, registry: Registry, engine: EngineSettings) -> None:
        self._registry = registry
        self._engine = engine
        self._passed: dict[str, Traces] = {}

    def check(self, version: str) -> Weights:
        """Bring the version's files here, check them, and say what they are.

        Raises UnknownVersion, VersionCorrupt, VersionUnfit or OSError.
        """
        folder = self._registry.path(version)
        if (traces := traces_of(folder)) == self._passed.get(version):
            for path in weight_files(folder):
                warm(path)
            return self._weights(self._registry.manifest(version), folder)
        self._passed.pop(version, None)
        base = Path(self._engine.model)
        manifest = preflight.check(
            self._registry,
            version,
            base=base,
            reference=self._reference(version, base),
            max_lora_rank=self._engine.max_lora_rank,
        )
        if manifest.tuning != self._engine.tuning:
            raise VersionUnfit(f"{version} holds {manifest.tuning} weights, engine.tuning is {self._engine.tuning}")
        self._passed = {**dict([*self._passed.items()][1 - KNOWN :]), version: traces}
        return self._weights(manifest, folder)

    def _weights(self, manifest: Manifest, folder: Path) -> Weights:
        version = manifest.version
        probe = manifest.probe or self._registry.manifest(version).probe  # one may have been added since
        return Weights(version, folder, probe, bool(manifest.files), manifest.traceparent)

    def _reference(self, version: str, base: Path) -> Path | None:
        """Whose tensors a full version must have: the base model's, or those of the first version that was live."""
        if has_weights(base):
            return base
        for other in self._registry.versions("policy"):
            if other != version and self._registry.status(other).state in ("live", "retired"):
                return self._registry.path(other)
        return None


def traces_of(folder: Path) -> Traces:
    """Raises OSError."""
    found = []
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            about = path.stat()
            changed_ns = about.st_ctime_ns if about.st_nlink == 1 else 0
            found.append((str(path), about.st_ino, about.st_size, about.st_mtime_ns, changed_ns))
    return frozenset(found)
