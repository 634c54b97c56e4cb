"""A disk that is full, under the spool and under the checkpoints (FAULTS 6, 28).

Real processes on a file system of a few MiB. Nothing that was acknowledged is lost, and everything goes on by itself
once there is room.
"""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from rlhf_online.config import dump
from tests.faults.auditor import audit
from tests.support.chat_process import ROOT, ChatProcess, chat_process
from tests.support.chat_service import ASK
from tests.support.small_disk import cannot_mount, small_disk
from tests.support.trainer_world import world
from tests.support.waiting import eventually, until

# Longer than a page, of which the last one of a file may have room.
THUMB = {"thumb": {"answer": {"completion_id": "chatcmpl-any"}, "up": True}, "reason": 8000 * "x"}


@pytest.fixture(autouse=True)
def mountable(tmp_path: Path) -> None:
    if why := cannot_mount(tmp_path / "tried"):
        pytest.skip(why)


async def _post(service: ChatProcess, path: str, body: dict) -> tuple[int, dict, dict[str, str]]:
    async with service.session.post(service.url + path, data=orjson.dumps(body)) as response:
        return response.status, orjson.loads(await response.read()), dict(response.headers)


async def test_a_full_spool_refuses_votes_and_lets_people_chat(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state" / "log", mib=2) as disk:
        async with chat_process(tmp_path) as service:
            for _ in range(5):
                await service.vote(await service.ask())
            disk.fill()
            for _ in range(3):
                status, reply, headers = await _post(service, "/v1/feedback", THUMB)
                assert (status, int(headers["Retry-After"]) > 0) == (503, True)
                assert "No space left on device" in reply["error"]["message"]
                status, reply, _ = await _post(service, "/v1/chat/completions", ASK)
                assert (status, reply["rlhf"]["logged"]) == (200, False)
            disk.free()

            async def taken() -> bool:
                status, reply, _ = await _post(service, "/v1/feedback", THUMB)
                if status == 200:
                    service.acknowledged.append(reply["event_id"])
                return status == 200

            await eventually(taken)
            await service.vote(await service.ask())
            report = audit(service.state.root, service.acknowledged)
            assert (report.problems, report.accepted) == ([], 13)


def test_a_trainer_without_room_for_a_checkpoint_pauses_and_goes_on_by_itself(tmp_path: Path) -> None:
    with world(tmp_path) as tiny, small_disk(tiny.state.checkpoints, mib=64) as disk:
        config = tmp_path / "trainer.toml"
        dump(tiny.settings.model_copy(update={"reward_address": tiny.service.address}), config)
        process = subprocess.Popen([sys.executable, "-m", "tests.support.trainer_process", str(config)], cwd=ROOT)
        try:
            tiny.chat(20)
            until(lambda: tiny.state.read_status("trainer").get("cycle") == 1, 120, "a first cycle")
            before = sorted(tiny.state.checkpoints.glob("*/manifest.json"))
            trained = audit(tiny.state.root, tiny.accepted).fate["trained"]
            disk.fill()
            tiny.chat(20)
            until(lambda: "No space left" in tiny.state.read_status("trainer").get("waiting_for", ""), 120, "a pause")
            assert process.poll() is None
            assert sorted(tiny.state.checkpoints.glob("*/manifest.json")) == before
            disk.free()
            until(lambda: tiny.state.read_status("trainer").get("cycle") == 2, 120, "the second cycle")
            report = audit(tiny.state.root, tiny.accepted)
            assert (report.problems, report.twice) == ([], 0)
            assert report.fate["trained"] > trained
        finally:
            process.kill()
            process.wait()
