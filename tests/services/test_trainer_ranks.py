"""The trainer under torchrun: one of its processes is the trainer, all have one configuration, and all end together."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from rlhf_online.config import VersionsSettings, dump
from rlhf_online.errors import ConfigError
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.training import distributed
from rlhf_online.training.policy.settings import PolicyTraining
from services.trainer import ranks as alike
from tests.services.test_trainer_service import settings_in
from tests.support import ranks
from tests.support.object_server import BUCKET, object_server
from tests.support.object_server import environment as environment_of
from tests.support.ports import reserve
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
FIRST = "the first policy version"


def listening(pid: int) -> set[str]:
    """The addresses on which a process and those that it started listen."""
    root = psutil.Process(pid)
    sockets = [each for one in (root, *root.children(recursive=True)) for each in one.net_connections("inet")]
    return {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN}


def test_a_trainer_of_two_processes_of_which_one_leads_listens_where_nobody_else_reaches_it(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model", weights_seed=None)
    state = StateDir(tmp_path / "state")
    dump(settings_in(tmp_path, tmp_path / "ready.json"), config := tmp_path / "trainer.toml")
    launch = [sys.executable, "-m", "rlhf_online.training.distributed.launch", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*launch, "-m", "services.trainer", "--config", config],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: state.read_status("trainer") or process.poll() is not None, 300, "a status")
        assert state.read_status("trainer")["waiting_for"] == "the first policy version"
        assert listening(process.pid) == {"127.0.0.1"}
    finally:
        process.terminate()
        said = process.communicate(timeout=120)[1]
    assert said.count("lease taken") == 1 and said.count("metrics=") == 1, said
    assert "RanksFailed" not in said


def test_whatever_its_options_say_the_store_listens_where_nobody_else_reaches_it() -> None:
    launch = [sys.executable, "-m", "rlhf_online.training.distributed.launch", "--standalone", "--no-python"]
    told = (
        "import os, psutil; found = psutil.Process(os.getppid()).net_connections('inet'); "
        "print({each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN})"
    )
    ended = subprocess.run([*launch, sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.stdout == "{'127.0.0.1'}\n", ended.stderr


def test_several_machines_are_refused() -> None:
    launch = [sys.executable, "-m", "rlhf_online.training.distributed.launch"]
    command = [*launch, "--nnodes", "2", "-m", "services.trainer"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and "--nnodes is 2" in ended.stderr and "Traceback" not in ended.stderr


def test_two_machines_train_together_and_find_versions_by_name_in_a_bucket(tmp_path: Path) -> None:
    """As the chart starts them on several nodes: each has a state folder of its own."""
    write_tiny_model(tmp_path / "model", weights_seed=3)
    nodes = [tmp_path / "leader", tmp_path / "worker"]
    with object_server() as server:
        versions = VersionsSettings(url=f"s3://{BUCKET}/several")
        changes = {"state_dir": Path("state"), "versions": versions, "threads": 1}
        dump(settings_in(tmp_path).model_copy(update=changes), config := tmp_path / "trainer.toml")
        given = {"GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
        port, started = str(reserve()), list[subprocess.Popen[str]]()
        try:
            for number, node in enumerate(nodes):
                node.mkdir()
                torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(number)]
                where = ["--master-addr", "127.0.0.1", "--master-port", port, "--nproc-per-node", "1"]
                command = [*torchrun, *where, "-m", "services.trainer", "--config", str(config)]
                environment = os.environ | given | environment_of(server.port)
                started.append(subprocess.Popen(command, cwd=node, env=environment, stderr=subprocess.PIPE, text=True))
            status = StateDir(nodes[0] / "state")
            copies = [node / "state" / "versions" / "copies" / "policy-000000" for node in nodes]

            def built() -> bool:
                ended = any(process.poll() is not None for process in started)
                return ended or (copies[1].is_dir() and status.read_status("trainer").get("waiting_for") != FIRST)

            until(built, 300, "both to have the first version")
            assert copies[0].is_dir() and copies[1].is_dir()
            (rank,) = psutil.Process(started[1].pid).children()
            rank.kill()
            said = [process.communicate(timeout=120)[1] for process in started]
        finally:
            for process in started:
                process.kill()
    assert "rank 1 (" in said[0] and "Nothing of this update is kept" in said[0], said[0]
    assert [process.returncode == 0 for process in started] == [False, False]


def alone_or_with(folder: Path, changes: dict[int, dict[str, Any]], packages: dict[int, str]) -> str:
    """What a rank says whose settings and torch are changed so."""
    rank = int(os.environ["RANK"])
    settings = settings_in(folder).model_copy(update=changes.get(rank, {}))
    installed = alike.metadata.version
    alike.metadata.version = lambda name: packages.get(rank, "0") if name == "torch" else installed(name)
    with distributed.process_group(torch.device("cpu"), 60.0):
        alike.check_alike(settings)
    return "alike"


@pytest.mark.parametrize(
    ("changes", "packages", "said"),
    [
        ({}, {}, None),
        ({1: {"policy": PolicyTraining(lr=0.5)}}, {}, r"^policy\.lr is 0\.5 for rank 1 and .* for rank 0: give all"),
        ({0: {"model": "elsewhere"}}, {}, r"^model is '.*/model' for rank 1 and 'elsewhere' for rank 0: give all"),
        (
            {1: {"chat_url": "http://ada:secret@elsewhere"}},
            {},
            r"^chat_url is 'http://…@elsewhere' for rank 1 and 'http://.*' for rank 0: give all",
        ),
        ({}, {1: "2.12"}, r"^torch is '2\.12' for rank 1 and '0' for rank 0: give all"),
    ],
)
def test_ranks_of_other_settings_or_another_release_do_not_begin(
    changes: dict[int, dict[str, Any]], packages: dict[int, str], said: str | None, tmp_path: Path
) -> None:
    for found in ranks.run(2, alone_or_with, tmp_path, changes, packages):
        if said is None:
            assert found == "alike"
        else:
            with pytest.raises(ConfigError, match=said):
                raise found
