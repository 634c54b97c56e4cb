"""Checkpoints in the bucket where the versions are, so that a trainer on another node goes on from the newest one.

    checkpoints/kept          {"holder": …, "kept": [manifest, …]}: who saves here, and the checkpoints that there are
    checkpoints/blobs/…       their files, each stored once under its SHA-256, whichever checkpoints share it

A checkpoint is there from the moment on at which `kept` names it, which is written last, under the condition that it
is what this trainer wrote before. A trainer that starts writes its own name there (`claim`): whoever saved before finds
that out with its next save, which changes nothing and raises Fenced, wherever it runs and whatever its clock says. So
the bucket needs no lease. What each manifest holds is `checkpoint`'s business.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from rlhf_online.errors import CheckpointError, Fenced, StoreUnavailable
from rlhf_online.training.checkpoint_files import SEALED, Manifest

if TYPE_CHECKING:
    from rlhf_online.versions.bucket import Bucket, Object

KEPT, BLOBS = "checkpoints/kept", "checkpoints/blobs"

Guard = Callable[[], AbstractContextManager[None]]


class BucketCheckpoints:
    """Those in `bucket`, saved by `holder`, a name that no other process has. Claim them before anything else.

    Every method raises StoreUnavailable where the bucket does not answer now.
    """

    def __init__(self, bucket: "Bucket", holder: str) -> None:
        self._bucket = bucket
        self._holder = holder
        self._record: Object | None = None
        self.kept: list[Manifest] = []
        """Their manifests, the newest one last."""

    @property
    def place(self) -> str:
        """Where people find the record."""
        return self._bucket.place(KEPT)

    def claim(self) -> None:
        """From now on nobody else saves here. Raises CheckpointError for a record that cannot be read.

        What trainers uploaded that were killed before a checkpoint named it goes: only what was there before, since
        what comes later may be of a trainer that has claimed them after this one.
        """
        before = {each.name for each in self._bucket.listed(BLOBS)}
        while True:
            found = self._bucket.get(KEPT)
            self.kept = self._parse(found)[1]
            if self._write(found, self.kept):
                break
        self._delete(before - _named(self.kept))

    def upload(self, files: Mapping[str, Path]) -> None:
        """Have these files there, by their SHA-256; those that a checkpoint names are. Raises OSError."""
        there = _named(self.kept)
        for sha256, path in files.items():
            if sha256 not in there:
                self._bucket.upload(f"{BLOBS}/{sha256}", path)

    def commit(self, manifest: Manifest, keep: int, guard: Guard) -> None:
        """Make it the newest one, in place of what has its number, and drop all but `keep`.

        Raises Fenced if another trainer has claimed them.
        """
        others = [each for each in self.kept if each["number"] != manifest["number"]]
        kept = [*others, manifest][-keep:]
        with guard():
            while not self._write(self._record, kept):
                self._record = self._bucket.get(KEPT)  # an earlier answer may have been lost, or another one came
                holder, _ = self._parse(self._record)
                if holder != self._holder:
                    raise Fenced(
                        f"another trainer ({holder or 'unknown'}) saves the checkpoints in {self.place} now: this one "
                        "writes nothing from here on. See that one trainer runs on these versions"
                    )
        dropped = _named(self.kept) - _named(kept)
        self.kept = kept
        self._delete(dropped)

    def fetch(self, sha256: str, path: Path) -> None:
        """Write a file's content into a new file. Raises CheckpointError if it is gone or damaged; OSError."""
        place = self._bucket.place(f"{BLOBS}/{sha256}")
        came = self._bucket.download(f"{BLOBS}/{sha256}", path)
        if came != sha256:
            raise CheckpointError(f"{place} {'is missing' if came is None else 'is damaged'}")

    def _write(self, before: "Object | None", kept: Sequence[Manifest]) -> bool:
        values = {"holder": self._holder, "kept": kept}
        written = self._bucket.put(KEPT, json.dumps(values, sort_keys=True).encode(), before)
        self._record = written or self._record
        return written is not None

    def _parse(self, record: "Object | None") -> tuple[str, list[Manifest]]:
        """Who wrote it, and what it names."""
        if record is None:
            return "", []
        try:
            values = json.loads(record.data)
            kept = sorted(values["kept"], key=lambda manifest: manifest["number"])
            _named(kept)
            return str(values["holder"]), kept
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f"{self.place} cannot be read ({error!r}): bring back an earlier version of that object, "
                "or remove it to go on from the checkpoints in the state folder"
            ) from error

    def _delete(self, digests: Iterable[str]) -> None:
        """Remove these files, unless another trainer saves here now: it may have uploaded the same content."""
        try:
            if self._bucket.get(KEPT, self._record) is self._record:
                self._bucket.delete(f"{BLOBS}/{sha256}" for sha256 in digests)
        except StoreUnavailable as error:  # the next trainer that starts removes it
            structlog.get_logger().warning("what belongs to no checkpoint stays for now", why=str(error))


def _named(kept: Sequence[Manifest]) -> set[str]:
    """The files of the checkpoints, by SHA-256. Raises KeyError, TypeError, AttributeError for what is no manifest."""
    return {item["sha256"] for manifest in kept for kind in ("files", *SEALED) for item in manifest[kind].values()}
