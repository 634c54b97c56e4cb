"""`helm test`'s script against the real service, log and trainer."""

import asyncio
import os
import sys
from pathlib import Path

from tests.support.chart import CHART
from tests.support.chat_service import Service, running
from tests.support.trainer_world import world

SCRIPT = CHART / "files" / "vote.py"


async def script(service: Service, until: str, timeout_s: float, votes: int = 1) -> asyncio.subprocess.Process:
    given = {"CHAT_URL": service.url, "RLHF_OPERATOR_TOKEN": service.state.operator_token()}
    environment = os.environ | given | {"UNTIL": until, "TIMEOUT_S": str(timeout_s), "VOTES": str(votes)}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, "-I", SCRIPT, env=environment, stdout=pipe, stderr=pipe)


async def test_it_sees_a_vote_learned_from_and_says_how_far_others_came(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with world(tmp_path) as tiny:
        async with running(tmp_path, log=tiny.log) as service:
            waiting = await script(service, "trained", 90, votes=24)
            with tiny.trainer() as trainer:
                while waiting.returncode is None:
                    await asyncio.to_thread(trainer.run_once)
                    await asyncio.sleep(0.05)
            out, err = await waiting.communicate()
            assert waiting.returncode == 0, (out, err)
            assert b"trained in reward-000000" in out
            impatient = await script(service, "live", 0)
            _, said = await impatient.communicate()
            assert impatient.returncode == 1
            assert said.startswith(b"error: no vote is live after 0")


async def test_a_service_that_is_not_there_is_said_in_a_sentence(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        pass
    done = await script(service, "joined", 5)
    _, said = await done.communicate()
    assert done.returncode == 1
    assert said.startswith(b"error: POST /v1/chat/completions was not answered") and b"Traceback" not in said
