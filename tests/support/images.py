"""Images built by buildah from docker/, and containers of them as docker/compose.yaml has it, where no Docker runs.

The base is made of Debian's packages by mmdebstrap, and stands where a registry's Python image does. A container is the
image's root file system, mounted read-only in namespaces of its own, with the mounts that compose.yaml names, the user,
the environment and the command of the image, and no capability. All of a `Machine` share one network of their own, so
that they have the ports of compose.yaml whatever else runs here.
"""

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.support.waiting import ENGINE_START_S, until

ROOT = Path(__file__).resolve().parents[2]
BASE = "localhost/rlhf-online-base:trixie"
TEST = "localhost/rlhf-online-test"
LAST = f"{TEST}-engine-cpu"
"""The largest of them: where it is, an earlier run's layers are kept."""
USER = 10001
ROOM_GIB, ROOM_AGAIN_GIB = 50, 25
PACKAGES = "python3,python3-venv,ca-certificates"
UNUSED = ("man", "doc", "locale", "info")

ENTER = """
set -e
root=$1; work=$2; shift 2
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind -o ro /sys "$root/sys"
while [ "$1" != -- ]; do
    mount --bind "$1" "$root$2"
    [ "$3" = rw ] || mount -o remount,ro,bind "$root$2"
    shift 3
done
shift
exec chroot --userspec=10001:10001 --groups= "$root" /usr/bin/env -C "$work" "$@"
"""


def missing() -> str:
    """Why no image can be built here; "" if one can."""
    tools = [tool for tool in ("buildah", "mmdebstrap", "unshare", "nsenter") if shutil.which(tool) is None]
    if tools:
        return f"images are built with {' and '.join(tools)}: apt-get install buildah mmdebstrap"
    if os.geteuid() != 0:
        return "only root builds and mounts images here"
    free = shutil.disk_usage("/var").free >> 30
    if free >= ROOM_GIB or (free >= ROOM_AGAIN_GIB and _exists(LAST)):
        return ""
    return f"images are built where {ROOM_GIB} GiB of disk are free ({ROOM_AGAIN_GIB} again), and here are {free}"


def _exists(image: str) -> bool:
    return bool(_run("buildah", "images", "--quiet", image, check=False).stdout.strip())


def base() -> str:
    """The base image, made on first use."""
    if _exists(BASE):
        return BASE
    mirror = next(
        word for path in Path("/etc/apt").rglob("*.sources") for line in path.read_text().splitlines()
        if line.startswith("URIs:") for word in line.split()[1:]
    )  # fmt: skip
    container = _run("buildah", "from", "scratch").stdout.strip()
    tree = _run("buildah", "mount", container).stdout.strip()
    _run(
        *("mmdebstrap", "--quiet", "--variant=minbase", "--format=directory", f"--include={PACKAGES}"),
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in UNUSED),
        '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*',
        '--customize-hook=ln -s python3 "$1"/usr/bin/python',
        *("--skip=check/qemu,check/empty", "trixie", tree, mirror),
    )
    paths = ":".join(("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"))
    _run("buildah", "config", "--env", f"PATH={paths}", container)
    _run("buildah", "commit", "--quiet", "--rm", container, BASE)
    return BASE


@dataclass(frozen=True)
class Image:
    """One that was built."""

    name: str

    @cached_property
    def config(self) -> dict[str, Any]:
        """As Docker keeps it: User, Env, Entrypoint, Cmd, Healthcheck, Labels."""
        return json.loads(_run("buildah", "inspect", "--type", "image", self.name).stdout)["Docker"]["config"]

    @cached_property
    def megabytes(self) -> float:
        """What its layers hold, unpacked: 10⁶ bytes."""
        listed = json.loads(_run("buildah", "images", "--json", self.name).stdout)[0]["size"]
        number, unit = listed.split()
        return float(number) * {"KB": 1e-3, "MB": 1.0, "GB": 1e3}[unit]

    def read(self, path: str) -> str:
        """A file of it."""
        container = _run("buildah", "from", "--pull-never", self.name).stdout.strip()
        try:
            return Path(_run("buildah", "mount", container).stdout.strip() + path).read_text()
        finally:
            _run("buildah", "rm", container)


def build(dockerfile: str, target: str = "") -> Image:
    """Build docker/DOCKERFILE.Dockerfile, with this machine's certificates and package caches; layers are kept."""
    image = Image(f"{TEST}-{dockerfile}{'-' + target if target else ''}")
    command = ["buildah", "bud", "--isolation", "chroot", "--pull-never", "--format", "docker", "--layers"]
    given = [f"--build-arg=PYTHON={base()}", f"--file=docker/{dockerfile}.Dockerfile", f"--tag={image.name}"]
    (cache := Path.home() / ".cache" / "uv").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as trust:
        Path(trust, "uv.toml").write_text("native-tls = true\n")  # the authorities of /etc/ssl/certs
        mounts = {str(cache): "/root/.cache/uv", trust: "/etc/uv"}
        mounts |= {path: path for path in ("/etc/ssl/certs", "/etc/pip.conf") if Path(path).exists()}
        volumes = [f"--volume={source}:{place}" for source, place in mounts.items()]
        _run(*command, *volumes, *given, *([f"--target={target}"] if target else []), ".")
    return image


class Machine:
    """Containers of one network; `folder` is where their volumes lie, and the model that they all read."""

    def __init__(self, folder: Path, model: Path) -> None:
        self._folder = folder
        self._model = model
        self._services: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._roots: list[str] = []
        up = "ip link set lo up && exec sleep infinity"
        self._network = subprocess.Popen(["unshare", "--net", "sh", "-c", up])

    def start(self, name: str, image: Image, environment: dict[str, str]) -> None:
        """A container of the service, as compose.yaml has it, with more variables in its environment."""
        config = image.config
        command = self._enter(name, image, environment, [*config["Entrypoint"], *config["Cmd"]])
        with self.log(name).open("wb") as output:
            self._processes[name] = subprocess.Popen(command, stdout=output, stderr=output)

    @property
    def running(self) -> set[str]:
        """The services whose containers have not ended."""
        return {name for name, process in self._processes.items() if process.poll() is None}

    def wait(self, name: str, image: Image, url: str = "") -> None:
        """Until the image's health check is content, or the same check of another `url`; not after the end."""
        kind, *check = image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        command = self._enter(name, image, {}, [*check[:-1], url or check[-1]])

        def well() -> bool:
            assert name in self.running, f"{name} has ended\n{self.tail()}"
            return subprocess.run(command, capture_output=True).returncode == 0

        until(well, 3 * ENGINE_START_S, lambda: f"{name} {url}\n{self.tail()}", poll_s=1.0)

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def tail(self) -> str:
        """The last lines of every container."""
        logs = [(name, self.log(name).read_text(errors="replace").splitlines()[-15:]) for name in self._processes]
        return "\n".join(f"== {name}\n" + "\n".join(lines) for name, lines in logs)

    def stop(self) -> None:
        """End all, and let go of their file systems."""
        for process in self._processes.values():
            process.kill()  # unshare, with which everything in its namespace of processes ends
            process.wait()
        self._network.kill()
        self._network.wait()
        for container in self._roots:
            _run("buildah", "rm", container, check=False)

    def _enter(self, name: str, image: Image, environment: dict[str, str], command: list[str]) -> list[str]:
        config = image.config
        root = self._root(name, image)
        mounts = [word for mount in self._mounts(name, root) for word in mount]
        variables = [*config["Env"], *(f"{key}={value}" for key, value in environment.items())]
        network = ["nsenter", f"--net=/proc/{self._network.pid}/ns/net"]
        space = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "enter"]
        inside = ["-i", *variables, *command]
        return [*network, *space, root, config["WorkingDir"], *mounts, "--", *inside]

    def _root(self, name: str, image: Image) -> str:
        """The image's file system, mounted once a service; folders for mounts are made in it, as a runtime does."""
        container = f"rlhf-online-test-{name}-{os.getpid()}"
        if container not in self._roots:
            _run("buildah", "from", "--pull-never", "--name", container, image.name)
            self._roots.append(container)
        return _run("buildah", "mount", container).stdout.strip()

    def _mounts(self, name: str, root: str) -> list[tuple[str, str, str]]:
        """(source, target, "rw" or "ro") of compose.yaml, the outer ones first."""
        found = []
        for volume in self._services[name]["volumes"]:
            if isinstance(volume, str):
                source, target, *_ = volume.split(":")
                found.append((str(ROOT / "docker" / source), target, "ro"))
            elif volume["type"] == "bind":
                found.append((str(self._model), volume["target"], "ro"))
            else:
                (source := self._folder / volume["source"]).mkdir(exist_ok=True)
                os.chown(source, USER, USER)
                source.chmod(0o700)
                found.append((str(source), volume["target"], "ro" if volume.get("read_only") else "rw"))
        found.sort(key=lambda mount: mount[1].count("/"))
        inside = {"": root}
        for source, target, _ in found:
            outer = max((each for each in inside if target.startswith(f"{each}/")), key=len)
            place = Path(inside[outer] + target.removeprefix(outer))
            place.parent.mkdir(parents=True, exist_ok=True)
            if Path(source).is_dir():
                place.mkdir(exist_ok=True)
            else:
                place.touch()
            inside[target] = source
        return found


def _run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0 or not check, f"{' '.join(command)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done
