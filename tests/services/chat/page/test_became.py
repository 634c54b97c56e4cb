"""What became of a vote, on the page: the real service, log, trainer and versions; only the engine is a fake."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.feedback.held_out import is_held_out
from tests.services.chat.page.conftest import Visit
from tests.support.chat_service import running
from tests.support.chromium import By, saying
from tests.support.trainer_world import world

LEARNED = re.compile(
    "learned from it in reward-000000, and the model in policy-000001, live since|Kept: it is replayed in later updates"
)
"""The second where none of the reward model's heads drew the vote, whose id is random."""

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("by", ["mouse", "keys"])
async def test_a_vote_tells_what_became_of_it(tmp_path: Path, browser: Browser, visitors: Visit, by: By) -> None:
    with LocalLog(tmp_path / "state" / "log") as log:
        async with running(tmp_path, log=log) as service:
            visitor = await visitors(service.url, by)
            await visitor.ask("?")
            await visitor.do("Good answer", "+")
            await expect(visitor.answer).to_contain_text("counted, thank you")
            await visitor.do("What became of it", "w")
            became = visitor.answer.locator(".became")
            await expect(became).to_have_text("Accepted: it is on disk, and the trainer reads it next.")
            await visitor.do("What became of it", "w")
            await expect(became).to_be_hidden()


async def test_it_is_followed_until_what_serves_has_learned_from_it(
    tmp_path: Path, browser: Browser, visitors: Visit
) -> None:
    with world(tmp_path) as tiny:
        async with running(tmp_path, log=tiny.log) as service:
            visitor = await visitors(service.url)
            service.engine.answers = saying("well")
            await visitor.ask("?", pair=True)
            while is_held_out(await visitor.page.evaluate("sessionStorage.getItem('rlhf:open')"), 0.2):
                await visitor.do("New conversation", "n", where=lambda: visitor.page.get_by_role("navigation"))
                await visitor.ask("?", pair=True)
            await visitor.do("Left", "1")
            await expect(visitor.answer).to_contain_text("counted, thank you")
            await visitor.do("What became of it", "w")
            became = visitor.answer.locator(".became")
            await expect(became).to_have_text("Accepted: it is on disk, and the trainer reads it next.")
            with tiny.trainer() as trainer:
                assert not trainer.run_once()
                await expect(became).to_contain_text("Joined with its answer")
                tiny.chat(20)
                assert trainer.run_once()
            await expect(became).to_have_text(LEARNED)
