"""Who holds what lets one trainer write, and whether they are alive."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from rlhf_online.doctor.clock import told
from rlhf_online.doctor.finding import Finding, ok, refuse
from rlhf_online.errors import ConfigError
from rlhf_online.training.lease import LeaseObject

REQUEST_S = 5.0
AGAIN = 0.5
"""Share of the duration after which a holder that lives has renewed the object for sure: it does so every third."""


def kubernetes(target: LeaseObject) -> Finding:
    """The Lease object. One that looks forgotten is looked at twice, since clocks of two machines may differ."""
    about = f"lease {target.name}"
    try:
        spec = _spec(target)
        holder, duration_s = spec.get("holderIdentity") or "", float(spec.get("leaseDurationSeconds") or 0)
        if not holder:
            return ok(about, "nobody holds it")
        age_s = time.time() - _seconds(spec.get("renewTime"))
        if age_s > duration_s:
            time.sleep(duration_s * AGAIN)
            if _spec(target) == spec:
                todo = (
                    f"a trainer that waits takes it {duration_s:g} s after it began to; if there is none, see why the "
                    f"trainer's pod does not start; `kubectl delete lease {target.name}` hurts nobody"
                )
                return refuse(about, f"is held by {holder}, who has not renewed it for {told(age_s)}", todo)
        return ok(about, f"held by {holder}, who renews it")
    except ConfigError as error:
        return refuse(about, str(error), "let the service account get, create and update leases in its namespace")
    except OSError as error:
        return refuse(about, f"the API server does not answer ({error})", "see the way to it: NetworkPolicy, DNS")


def file(checkpoints: Path) -> Finding:
    """The lock in the folder, which is looked up, not tried: a trainer that starts just now must find it free."""
    about = f"lease in {checkpoints}"
    try:
        known = (checkpoints / "lock").stat()
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return ok(about, "no trainer has run here")
    # "1: FLOCK ADVISORY WRITE 4711 08:01:131 0 EOF": the process, and the file's device and inode
    held = [int(line[4]) for line in locks if line[1] == "FLOCK" and line[5].endswith(f":{known.st_ino}")]
    if held:
        return ok(about, f"held by process {held[0]}")
    return ok(about, f"nobody holds it here; the last to take it was {_last(checkpoints)}")


def _last(checkpoints: Path) -> str:
    try:
        return str(json.loads((checkpoints / "epoch.json").read_text())["holder"])
    except (OSError, ValueError, KeyError, TypeError):
        return "nobody that is known"


def _spec(target: LeaseObject) -> dict[str, Any]:
    return (target.read(REQUEST_S) or {}).get("spec") or {}


def _seconds(stamp: Any) -> float:
    try:
        return datetime.fromisoformat(str(stamp).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
