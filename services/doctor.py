"""`rlhf-online doctor`: what stands in the way of this installation, and what to do about it.

    python -m services.doctor [--config FILE]… [--state DIR] [--ranks N] [--nodes M] [--json]
    python -m services.doctor --plan MODEL [--config FILE]… [--tuning TUNING] [--memory GIB] [--ranks N] [--nodes M]
                              [--json]

Reads the settings as the services do, the environment's too, and tries what they will need. It may run beside them: in
a pod, `kubectl exec POD -- python -m services.doctor`. Exit code 1 if anything stands in the way, 2 for a wrong option.
`--json` prints one object: {"ok": bool, "findings": [{"severity": "ok|warn|refuse", "about", "what", "todo"}, …]}; of a
plan {"ok", "ranks", "ranks_here", "plans": [{"tuning", "reward_tuning", "dtype", "recompute", "optimiser_state",
"sharding", "gpu", "gpu_full_passes", "host", "cpu", "reward_service", "parts", "other_ranks"}, …], "findings"}, in
bytes: of rank 0, and in "other_ranks" of each other, null where one process trains.

Where several processes train together no setting says how many: --ranks does, on each of --nodes machines, or, as the
chart sets them, the variables RLHF_RANKS and RLHF_NODES.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from rlhf_online.config import (
    ChatSettings,
    EngineSettings,
    LogAddress,
    ProcessSettings,
    RewardSettings,
    ServiceSettings,
    Tuning,
    load,
)
from rlhf_online.config.engine import EngineServerSettings
from rlhf_online.doctor import (
    certificates,
    disks,
    gpu,
    keystore,
    lease,
    packages,
    plan,
    ports,
    records,
    secrets,
    settings,
    store,
)
from rlhf_online.doctor.finding import Finding, ok, refuse
from rlhf_online.doctor.kafka import kafka
from rlhf_online.errors import ConfigError, InvalidInput, RlhfError
from rlhf_online.eventlog import kafka_cluster, log_folder, open_source
from rlhf_online.eventlog.folder import segments
from rlhf_online.models.tensor_headers import has_weights
from rlhf_online.process import report_error
from rlhf_online.state import StateDir
from rlhf_online.training.lease import LeaseObject
from rlhf_online.training.settings import TrainerSettings
from services.standalone.settings import StandaloneSettings

INSTALLED = Path("/etc/rlhf-online")
SERVICES: dict[str, type[ProcessSettings]] = {
    "chat": ChatSettings,
    "engine": EngineServerSettings,
    "reward": RewardSettings,
    "trainer": TrainerSettings,
}
NEEDED = 1 << 30
"""Bytes that should be free: a few checkpoints of a small model, and days of a small log. docs/sizing.md says more."""

Check = Callable[[], list[Finding]]


@dataclass(slots=True, kw_only=True)
class Installation:
    """The settings of the services that are known here; `engine` of one beside the chat service, in a container."""

    chat: ChatSettings | None = None
    engine: EngineServerSettings | None = None
    reward: RewardSettings | None = None
    trainer: TrainerSettings | None = None

    @property
    def all(self) -> list[ServiceSettings]:
        return [each for each in (self.chat, self.reward, self.trainer) if each is not None]

    @property
    def started(self) -> EngineSettings | None:
        """The engine that is started here, by the chat service or by itself."""
        if self.engine is not None:
            return self.engine
        return self.chat.engine if self.chat is not None and self.chat.engine.mode == "managed" else None

    @property
    def logs(self) -> Iterator[tuple[LogAddress, Path]]:
        """Each log once, with the folder that it has on this machine."""
        seen: list[LogAddress] = []
        for each in (self.chat, self.trainer):
            if each is not None:
                address = LogAddress.model_validate(
                    {
                        name: getattr(each.log, name)
                        for name in LogAddress.model_fields
                        if name in each.log.model_fields_set
                    }
                )
                if address not in seen:
                    seen.append(address)
                    yield address, StateDir(each.state_dir).log


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="rlhf-online doctor", description=__doc__)
    parser.add_argument("--config", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--state", type=Path, default=Path("state"), metavar="DIR")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plan", type=Path, metavar="MODEL", help="how much memory the model's training needs")
    parser.add_argument("--tuning", choices=("full", "lora"))
    parser.add_argument("--memory", type=float, metavar="GIB")
    for name, what in (("ranks", "processes of a machine that train together"), ("nodes", "machines with as many")):
        given = os.environ.get(f"RLHF_{name.upper()}", "1")
        parser.add_argument(f"--{name}", type=_positive, default=given, metavar="N", help=what)
    options = parser.parse_args()
    ranks = plan.Ranks(number=options.ranks * options.nodes, here=options.ranks)
    for name in ("kafka", "structlog"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it says is said in the findings
    try:
        if options.plan is not None:
            return show_plan(options.plan, options.config, options.tuning, options.memory, ranks, as_json=options.json)
        files = options.config or known_files(options.state)
    except RlhfError as error:
        return report_error(error)
    found = examine(files, ranks)
    show(found, as_json=options.json)
    return int(any(finding.severity == "refuse" for finding in found))


def show_plan(
    model: Path,
    files: Sequence[Path],
    tuning: Tuning | None,
    memory_gib: float | None,
    ranks: plan.Ranks,
    *,
    as_json: bool,
) -> int:
    """How much memory the model's training needs, by these settings; returns the exit code. Raises RlhfError."""
    installation, wrong = read(files)
    if refused := [each for each in wrong if each.severity == "refuse"]:
        raise ConfigError(refused[0].what)
    trainer = installation.trainer or TrainerSettings(state_dir=Path(), chat_url="", reward_address="", model="")
    if tuning is not None:
        trainer = trainer.model_copy(update={"tuning": tuning})
    shape = plan.Shape.of(model)
    on_gpu = gpu.memory() if trainer.device != "cpu" else 0
    on_a_gpu = trainer.device == "cuda" or bool(on_gpu)
    if memory_gib:
        place: plan.Place = "a GPU" if on_a_gpu else "a CPU"
        found = [plan.fits(shape, trainer, round(memory_gib * plan.GIB), place, ranks)]
    else:
        found = _fits_here(shape, trainer, on_gpu, ranks)
    if as_json:
        told = {"ranks": ranks.number, "ranks_here": ranks.here, "plans": list(plan.rows(shape, trainer, ranks))}
        is_ok = all(each.severity == "ok" for each in found)
        print(json.dumps({"ok": is_ok, **told, "findings": [asdict(each) for each in found]}))
    else:
        print("\n".join(plan.table(shape, trainer, ranks)))
        now = plan.chosen(trainer, gpu=on_a_gpu)
        by = ", ".join(f"{name} = {value}" for name, value in now.said().items())
        print(f"\nby these settings ({by}), GiB")
        print("\n".join(plan.by_rank(shape, trainer, now, ranks)))
        print()
        show(found, as_json=False)
    return int(any(each.severity == "refuse" for each in found))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def known_files(state: Path, installed: Path = INSTALLED) -> list[Path]:
    """The settings that `up` runs with on the state folder, or else those of the services in a pod.

    In the engine's container of a pod, which is the one that has vLLM, its own alone: the ports are the other's.
    Raises ConfigError where there are none.
    """
    if (written := state / "run" / "standalone.toml").is_file():
        return [written]
    if (engine := installed / "engine.toml").is_file() and find_spec("vllm"):
        return [engine]
    if found := [path for name in SERVICES if (path := installed / f"{name}.toml").is_file() and path != engine]:
        return found
    raise ConfigError(
        f"no settings in {state}/run and none in {installed}: name the state folder with --state, files with --config, "
        "or a model's folder to look at that alone"
    )


def examine(files: Sequence[Path], ranks: plan.Ranks = plan.ALONE) -> list[Finding]:
    """Everything that is found, secrets taken out whatever said them."""
    installation, found = read(files)
    hide = secrets.hider(installation.all)
    for check in checks(installation, ranks):
        try:
            found += check()
        except (RlhfError, OSError) as error:  # what a check does not know of, others still have their turn
            found.append(refuse("doctor", f"could not look further: {error}", "mend that, and ask again"))
    return [Finding(each.severity, hide(each.about), hide(each.what), hide(each.todo)) for each in dict.fromkeys(found)]


def read(files: Sequence[Path]) -> tuple[Installation, list[Finding]]:
    """The settings in the files: a service's own where a file is called after it, else those of `up`."""
    installation, found = Installation(), list[Finding]()
    for path in files:
        kind = SERVICES.get(path.stem)
        try:
            if kind is None:
                up = load(StandaloneSettings, path)
                installation.chat, installation.reward, installation.trainer = up.chat, up.reward, up.trainer
            else:
                setattr(installation, path.stem, load(kind, path))
            found.append(ok("settings", f"{path}: read as those of {path.stem if kind else 'up'}"))
        except ConfigError as error:
            whose = f"the settings of {path.stem}" if kind else "the settings of `rlhf-online up`"
            todo = f"correct {path}; it was read as {whose}, by its name"
            found += [refuse("settings", line, todo) for line in str(error).splitlines()]
    return installation, found


def checks(known: Installation, ranks: plan.Ranks) -> Iterator[Check]:
    """Those that these settings ask for, the quick ones first."""
    yield partial(settings.agreement, known.chat, known.reward, known.trainer)
    extras, engine = _extras(known)
    yield partial(packages.packages, extras, engine=engine)
    for name, service in (("chat", known.chat), ("reward", known.reward), ("trainer", known.trainer)):
        if service is not None:
            yield from _ports(name, service)
    if known.chat is not None:
        yield partial(certificates.served, known.chat.tls)
    if known.trainer is not None:
        yield partial(certificates.trusted, "chat_ca_file", known.trainer.chat_ca_file)
    if known.started is not None:
        yield partial(settings.model, Path(known.started.model), known.started.tuning, served=True)
    if known.trainer is not None:
        yield partial(settings.model, Path(known.trainer.model), known.trainer.tuning, served=False)
        yield partial(_memory, known.trainer, ranks)
    for state_dir in dict.fromkeys(each.state_dir for each in known.all):
        state = StateDir(state_dir)
        places = (state.root, state.log, state.versions, state.checkpoints, state.conversations)
        yield partial(disks.folders, places, NEEDED)
        yield partial(secrets.kept, state)
    if known.trainer is not None:
        yield partial(_lease, known.trainer)
    for versions, state_dir in dict.fromkeys((each.versions, each.state_dir) for each in known.all):
        scheme, _, path = versions.url.partition(":")
        if scheme in ("", "file"):
            yield partial(store.folder, Path(path) if path else StateDir(state_dir).versions)
        else:
            yield partial(store.bucket, versions)
    sealing = [each for each in (known.chat, known.trainer) if each is not None]
    for keys, state_dir in dict.fromkeys((each.keystore, each.state_dir) for each in sealing):
        yield partial(keystore.keystore, keys, Path(state_dir), StateDir(state_dir).log)
    for address, folder in known.logs:
        yield partial(_log, address, folder)
    asked = [setting for setting, device in _devices(known) if device == "cuda"]
    if asked:
        yield lambda: [gpu.gpu(asked[0])]


def _extras(known: Installation) -> tuple[list[str], bool]:
    """The parts of the distribution that these services need, and whether an engine is among them."""
    extras = [name for name in SERVICES if name != "engine" and getattr(known, name) is not None]
    if any(address.url.startswith("kafka:") for address, _ in known.logs):
        extras.append("kafka")
    if any(each.versions.url and not each.versions.url.startswith("file:") for each in known.all):
        extras.append("object-store")
    sealing = [each.keystore for each in (known.chat, known.trainer) if each is not None and each.keystore.url]
    if sealing:
        extras += ["keystore"] + ["object-store"] * any(each.in_bucket for each in sealing)
    return extras, known.started is not None


def _ports(name: str, service: ServiceSettings) -> Iterator[Check]:
    for field in ("http_port", "grpc_port", "metrics_port"):
        if (number := getattr(service, field, None)) is not None:
            yield lambda number=number, field=field: [
                ports.port(service.host, number, f"{name}'s {field}", f"services.{name}")
            ]


def _devices(known: Installation) -> Iterator[tuple[str, str]]:
    if known.started is not None:
        yield "the engine's device", known.started.device
    for name, each in (("reward", known.reward), ("trainer", known.trainer)):
        if each is not None:
            yield f"{name}'s device", each.device


def _memory(trainer: TrainerSettings, ranks: plan.Ranks) -> list[Finding]:
    """Whether the trainer's models fit; nothing where the folder holds no weights yet."""
    if not has_weights(Path(trainer.model)):
        return []
    try:
        shape = plan.Shape.of(Path(trainer.model))
    except InvalidInput:  # what is wrong with the folder, another check says
        return []
    return _fits_here(shape, trainer, gpu.memory() if trainer.device != "cpu" else 0, ranks)


def _fits_here(shape: plan.Shape, trainer: TrainerSettings, on_gpu: int, ranks: plan.Ranks) -> list[Finding]:
    """Beside a GPU of so many bytes the host has to hold what an update changes, and moments that are kept there."""
    places: dict[plan.Place, int] = {"a CPU": plan.memory()}
    if on_gpu:
        places = {"a GPU": on_gpu, "a GPU's host": plan.memory()}
    return [plan.fits(shape, trainer, memory, place, ranks) for place, memory in places.items()]


def _lease(trainer: TrainerSettings) -> list[Finding]:
    if trainer.lease.kind == "file":
        return [lease.file(StateDir(trainer.state_dir).checkpoints)]
    try:
        return [lease.kubernetes(LeaseObject.of_pod(trainer.lease.name))]
    except ConfigError as error:
        return [refuse(f"lease {trainer.lease.name}", str(error), "run this in the trainer's pod")]


def _log(address: LogAddress, folder: Path) -> list[Finding]:
    """Kafka, if the log is shipped there, and what the log holds."""
    found: list[Finding] = []
    try:
        cluster = kafka_cluster(address)
        if cluster is not None:
            found = kafka(cluster)
            if any(each.severity != "ok" for each in found):
                return found  # a reader would make missing topics, and would not get further
        elif not (folder := log_folder(address, folder)).is_dir() or not segments(folder):
            return [ok(f"records in {folder}", "none yet")]
        source = open_source(address, folder)
        try:
            return found + records.records(source, str(cluster or folder))
        finally:
            source.close()
    except RlhfError as error:
        return [*found, refuse("log", str(error), "correct log")]


def show(found: Sequence[Finding], *, as_json: bool) -> None:
    """For people a line each, what is wrong last."""
    refused = [finding for finding in found if finding.severity == "refuse"]
    if as_json:
        print(json.dumps({"ok": not refused, "findings": [asdict(finding) for finding in found]}))
        return
    order = {"ok": 0, "warn": 1, "refuse": 2}
    for each in sorted(found, key=lambda finding: order[finding.severity]):
        print(f"{each.severity:<7} {each.about}: {each.what}")
        if each.todo:
            print(f"        → {each.todo}")
    warned = sum(finding.severity == "warn" for finding in found)
    print(f"{len(found)} looked at, {len(refused)} in the way, {warned} to know of")


if __name__ == "__main__":
    sys.exit(main())
