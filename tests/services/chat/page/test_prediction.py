"""The console shows what the gate predicted against what people said."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from tests.services.chat.page.conftest import Visit
from tests.services.chat.page.test_console import arrive
from tests.services.chat.page.test_looks import violations
from tests.support import api_keys
from tests.support.chat_service import running
from tests.support.chromium import By
from tests.support.parted import fill

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("by", ["mouse", "keys"])
async def test_the_gates_predictions_are_shown_against_people(tmp_path: Path, visitors: Visit, by: By) -> None:
    """A card says that they have parted; both are drawn by version, and as dots that pointer and keys read."""
    state = StateDir(tmp_path / "state")
    api_keys.write(state.root)
    state.person_hash()
    with LocalLog(state.log) as log:
        names = fill(open_registry(state.versions), log, 6, liked=0.25)
        async with running(tmp_path, log=log) as service:
            me = await arrive(visitors, service.url, "read", by)
            card = me.card("Gate and people")
            await expect(card).to_contain_text("have parted")
            await expect(card).to_contain_text("people prefer the versions before to the last 5")
            assert (await violations(me.page)) == []
            await me.to("Versions", "2")
            lines, dots = me.chart("Predicted and said"), me.chart("Prediction against people")
            await expect(lines.locator(".legend")).to_contain_text(f"{names[-1]}people 25% (14.")
            await expect(lines.locator(".legend")).to_contain_text("the gate’s prediction 60%")
            await expect(dots.locator("figcaption")).to_contain_text("5 versions: slope 0, people’s share less")
            await expect(dots.locator(".legend")).to_contain_text(names[-1])
            canvas = dots.locator(".canvas")
            if by == "keys":
                await canvas.focus()
                await me.page.keyboard.press("Home")
            else:
                box = await canvas.locator(".u-over").bounding_box()
                assert box is not None
                await me.page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] / 2)
            await expect(dots.locator(".legend")).to_contain_text(f"{names[1]}people 25%")
            await expect(dots.locator(".legend")).to_contain_text("the gate’s prediction 55%")
            await me.page.get_by_role("button", name=names[3], exact=True).click()
            details = me.page.locator("tr.details")
            await expect(details).to_contain_text("57%; 25% (14.2% … 40.2%) by 40 blind pairs of 40 people")
            assert (await violations(me.page)) == []
