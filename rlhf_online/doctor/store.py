"""The store of versions: whether of several that change one record one wins, and the others are told.

All that keeps two trainers from undoing each other's promotions stands on this, and some storage, and some file systems
over a network, do not keep it. So it is tried, by writers of their own at the same time.
"""

import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from rlhf_online.config import VersionsSettings
from rlhf_online.doctor.clock import clock
from rlhf_online.doctor.finding import Finding, ok, refuse
from rlhf_online.errors import ConfigError, StoreUnavailable
from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.store import VersionStore

WRITERS, ROUNDS = 6, 3
KEY = "doctor"
SKEWED = "RequestTimeTooSkewed"


def folder(root: Path) -> list[Finding]:
    """The folder of versions, if it is there yet: tried in a folder below it, which is removed."""
    about = f"versions in {root}"
    if not root.is_dir():
        return [ok(about, "none yet")]
    scratch = root / f".doctor-{uuid.uuid4().hex}"
    try:
        return [tried(about, lambda: FolderStore(scratch))]
    except OSError as error:
        return [refuse(about, f"cannot be written ({error.strerror or error})", "let this user write there")]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def bucket(settings: VersionsSettings) -> list[Finding]:
    """The bucket, by a record of its own in it (`records/doctor`), which stays; and its clock."""
    about = f"versions in {settings.url}"
    try:
        from rlhf_online.versions.bucket import Bucket
        from rlhf_online.versions.object_store import ObjectStore
    except ModuleNotFoundError:
        return [refuse(about, "needs the package obstore", "install rlhf-online[object-store]")]
    with tempfile.TemporaryDirectory(prefix="rlhf-doctor-") as copies:
        try:
            found = [tried(about, lambda: ObjectStore(Bucket(settings.url), Path(copies), 1 << 20))]
            bucket = Bucket(settings.url)
            before = time.time()
            bucket.put(f"records/{KEY}", uuid.uuid4().hex.encode(), bucket.get(f"records/{KEY}"))
            if (written := bucket.head(f"records/{KEY}")) is not None:
                found.append(clock(settings.url, written.written.timestamp(), before))
            return found
        except (StoreUnavailable, ConfigError) as error:
            if SKEWED in str(error):
                what = f"this machine's is so far from that of {settings.url} that it is refused ({SKEWED})"
                return [refuse("clock", what, "let NTP set it (chrony, systemd-timesyncd)")]
            return [refuse(about, str(error), "see versions.url, AWS_ENDPOINT_URL and the credentials of this process")]


def tried(about: str, new: Callable[[], VersionStore]) -> Finding:
    """Whether conditional writes hold in what `new` opens, once a writer. Raises OSError, ConfigError."""
    writers: Sequence[VersionStore] = [new() for _ in range(WRITERS)]
    times: list[float] = []
    wins = 0
    for _ in range(ROUNDS):
        before = writers[0].read(KEY)
        for writer in writers[1:]:  # each has to know what it is to replace
            writer.read(KEY)
        begun = time.perf_counter()
        with ThreadPoolExecutor(WRITERS) as pool:
            won = sum(pool.map(partial(_replaces, before), writers))
        wins += won
        times.append((time.perf_counter() - begun) / WRITERS)
        if won > 1 or _replaces(before, new()):
            todo = (
                "two trainers would undo each other's promotions: use storage that keeps If-Match, or locks that hold"
            )
            return refuse(about, f"lets {max(won, 2)} of {WRITERS} change one record at once", todo)
    if not wins:  # in a round somebody else may have been quicker, another doctor
        return refuse(about, "lets nobody change a record that is as it was", "use storage that keeps If-Match")
    return ok(about, f"of {WRITERS} writers at once one wins, {1000 * min(times):.0f} ms a write")


def _replaces(before: str | None, writer: VersionStore) -> bool:
    """Whether it got past the comparison."""
    try:
        return writer.replace(KEY, uuid.uuid4().hex, expected=before)
    except FileNotFoundError:  # another thread has renamed what this one wrote aside: both were where one may be
        return True
