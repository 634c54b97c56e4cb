"""The GPU where a setting asks for one; asked of torch, in a process of its own, since this one loads none."""

import json
import subprocess
import sys
from pathlib import Path

from rlhf_online.doctor.finding import Finding, ok, refuse

DRIVER = Path("/proc/driver/nvidia/version")
TIMEOUT_S = 120.0
_MEMORY = "import torch; print(torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0)"
_ASK = """
import json, torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
devices = [torch.cuda.get_device_properties(n) for n in range(count)]
told = [f"{d.name}, {d.total_memory / 2**30:.0f} GiB" for d in devices]
print(json.dumps({"built": torch.version.cuda, "devices": told}))
"""


def memory() -> int:
    """Bytes of the first GPU; 0 where there is none, or torch cannot be asked."""
    if not DRIVER.exists():
        return 0
    try:
        done = subprocess.run(
            [sys.executable, "-c", _MEMORY], capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL
        )
        return int(done.stdout.split()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return 0


def gpu(setting: str) -> Finding:
    """`setting` is the one that says 'cuda'."""
    if not DRIVER.exists():
        return refuse(
            "GPU",
            f"{setting} is 'cuda', and there is no NVIDIA driver here",
            f"give the pod nvidia.com/gpu, install the driver, or set {setting} to 'cpu'",
        )
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL
        )
        told = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return refuse(
            "GPU", f"{setting} is 'cuda', and torch cannot be asked ({type(error).__name__})", "install torch anew"
        )
    if told["built"] is None:
        return refuse("GPU", f"{setting} is 'cuda', and this torch is built for CPUs", "install requirements/gpu.txt")
    if not told["devices"]:
        return refuse(
            "GPU",
            f"{setting} is 'cuda', and torch {told['built']} sees no device",
            "see nvidia-smi, CUDA_VISIBLE_DEVICES, and whether the driver is as new as that CUDA",
        )
    return ok("GPU", "; ".join(told["devices"]))
