"""The demo's children: started, watched, killed on purpose, and never left behind."""

import inspect
import os
import sys

import pytest

from rlhf_online import config
from rlhf_online.config.files import write_toml
from rlhf_online.errors import InvalidInput
from rlhf_online.simulation import demo, processes
from rlhf_online.simulation.processes import Child, DemoError, Services
from rlhf_online.simulation.tiny_model import write_tiny_model
from services.standalone.settings import StandaloneSettings
from tests.support.processes import alive
from tests.support.waiting import eventually

SLEEP = "import time; time.sleep(600)"
FAMILY = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "{SLEEP} # the child"])
print(child.pid, flush=True)
child.wait()
"""
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {SLEEP}"


def python(code):
    return [sys.executable, "-c", code]


async def test_a_child_that_ends_is_explained_by_the_end_of_its_log(tmp_path):
    child = await Child.start(
        "the service", python("print('a'); raise SystemExit('port 80 is taken')"), tmp_path / "log"
    )
    await child.process.wait()
    assert child.ended
    assert "ended with exit code 1" in str(child.failed())
    assert "    port 80 is taken" in str(child.failed())


async def test_stopping_ends_the_whole_group_even_a_deaf_one(tmp_path):
    child = await Child.start("deaf", python(DEAF), tmp_path / "log", pipe=True)
    assert child.process.stdout is not None
    assert await child.process.stdout.readline() == b"deaf\n"
    assert await child.stop(grace_s=0.05) == -9

    family = await Child.start("family", python(FAMILY), tmp_path / "log", pipe=True)
    assert family.process.stdout is not None
    grandchild = int(await family.process.stdout.readline())
    # A program that has just begun has no command line for a moment.
    await eventually(lambda: "# the child" in processes.descendants(family.process.pid)[grandchild])
    await family.stop(grace_s=5)
    await eventually(lambda: not alive(grandchild))


async def test_kill_finds_a_descendant_by_its_command(tmp_path):
    family = await Child.start("family", python(FAMILY), tmp_path / "log", pipe=True)
    try:
        assert family.process.stdout is not None
        grandchild = int(await family.process.stdout.readline())
        assert processes.kill(os.getpid(), "no such command line anywhere") is None
        assert processes.kill(family.process.pid, "# the child") == grandchild
        assert await family.process.wait() == 0
    finally:
        await family.stop(grace_s=1)


async def test_a_service_that_does_not_start_is_an_error_with_its_log(tmp_path):
    settings = {"state_dir": tmp_path / "state", "ready_file": tmp_path / "ready", "model": tmp_path / "no"}
    settings = {name: str(path) for name, path in settings.items()}
    services = await Services.start(settings, tmp_path / "services.toml", tmp_path / "log")
    try:
        with pytest.raises(DemoError, match="no model folder at"):
            await services.listening(timeout_s=120)
    finally:
        await services.stop()


def test_whoever_waits_for_an_engine_is_as_patient_as_its_own_setting():
    for wait in (Services.listening, Services.ready):
        assert inspect.signature(wait).parameters["timeout_s"].default == config.EngineSettings().start_timeout_s


async def test_a_service_that_stays_silent_is_given_up(tmp_path):
    services = Services(await Child.start("silent", python(SLEEP), tmp_path / "log"), tmp_path / "ready")
    with pytest.raises(DemoError, match="opened no port within 0 s"):
        await services.listening(timeout_s=0.1)
    await services.stop()
    assert services.child.ended


async def test_fine_tuning_writes_a_model_and_tells_its_progress(tmp_path):
    write_tiny_model(tmp_path / "model", weights_seed=None)
    told = []
    await processes.fine_tune(
        tmp_path / "model",
        tmp_path / "out",
        seed=0,
        log=tmp_path / "log",
        tell=lambda *progress: told.append(progress),
        count=8,
        steps=12,
    )
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert [(step, steps) for step, steps, _ in told] == [(10, 12), (12, 12)] and told[-1][2] < 6


async def test_a_failed_fine_tuning_says_why(tmp_path):
    with pytest.raises(DemoError, match="is no folder"):
        await processes.fine_tune(
            tmp_path / "nothing", tmp_path / "out", seed=0, log=tmp_path / "log", tell=lambda step, steps, loss: None
        )


def test_settings_are_read_back_by_the_services(tmp_path):
    options = demo.parse(["--out", str(tmp_path / "demo"), "--seed", "7", "--port", "8123"])
    write_toml(demo.settings(options), tmp_path / "services.toml")
    settings = config.load(StandaloneSettings, tmp_path / "services.toml")
    assert (settings.trainer.seed, settings.chat.http_port, settings.tuning, settings.die_with_parent) == (
        7,
        8123,
        "full",
        True,
    )


def test_only_a_demos_folder_is_emptied(tmp_path):
    options = demo.parse(["--out", str(tmp_path)])
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidInput, match="no demo's"):
        demo.fresh(options)
    assert (tmp_path / "thesis.txt").exists()
    (tmp_path / "services.toml").touch()
    demo.fresh(options)
    assert list(tmp_path.iterdir()) == []


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(InvalidInput, match="nothing to resume"):
        demo.fresh(demo.parse(["--out", str(tmp_path), "--resume"]))


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--rate", "-1"], ["--votes", "mine"], ["--sed", "3"]])
def test_a_wrong_option_ends_with_a_message(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        demo.parse(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_main_ends_with_a_message_and_a_code(tmp_path, capsys):
    (tmp_path / "thesis.txt").touch()
    assert demo.main(["--out", str(tmp_path), "--plain"]) == 2
    assert "error:" in capsys.readouterr().err
