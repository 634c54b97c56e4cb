"""Who chose an audience on the page is answered by its adapter, in chat and side by side, until they choose another."""

import pytest
from playwright.async_api import Locator, expect

from tests.services.chat.page.conftest import Visit
from tests.support.chat_service import Service
from tests.support.chromium import Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIVE, BRIEF = "policy-000000", "policy.brief-000003"


def offered(visitor: Visitor) -> Locator:
    return visitor.page.get_by_role("combobox", name="Answers for", exact=True)


def writers(site: Service) -> list[str]:
    return [one.answers[0].sole_version for one in site.sink.completions]


async def test_what_was_chosen_is_sent_with_each_question(site: Service, visitors: Visit) -> None:
    site.host.adapters, site.host.audiences = (BRIEF,), {"brief": BRIEF, "long": ""}
    visitor = await visitors(site.url)
    await expect(offered(visitor).locator("option")).to_have_text(["everybody", "brief", "long"])
    await visitor.ask("first")
    await offered(visitor).select_option("brief")
    await expect(await visitor.ask("second")).to_contain_text(BRIEF)
    await visitor.ask("third", pair=True)
    assert writers(site) == [LIVE, BRIEF, BRIEF, BRIEF]
    await visitor.page.reload()
    await expect(offered(visitor)).to_have_value("brief")
    await visitor.ask("fourth")
    await offered(visitor).select_option("everybody")
    await visitor.ask("fifth")
    assert writers(site)[4:] == [BRIEF, LIVE]


async def test_one_that_goes_while_the_page_is_open_is_said_and_then_everybodys_adapter_answers(
    site: Service, visitors: Visit
) -> None:
    site.host.adapters, site.host.audiences = (BRIEF,), {"brief": BRIEF, "long": ""}
    visitor = await visitors(site.url)
    await offered(visitor).select_option("brief")
    site.host.audiences = {"long": ""}
    answer = await visitor.ask("?", pair=True)
    await expect(answer).to_contain_text("'brief' is no audience that is answered here; there are long")
    await expect(offered(visitor)).to_have_value("")
    await visitor.ask("!", pair=True)
    assert writers(site) == [LIVE, LIVE]


async def test_where_there_are_none_nothing_is_offered_and_one_that_went_is_not_asked_for(
    site: Service, visitors: Visit
) -> None:
    site.host.adapters, site.host.audiences = (BRIEF,), {"brief": BRIEF}
    visitor = await visitors(site.url)
    await offered(visitor).select_option("brief")
    site.host.audiences = {}
    async with visitor.page.expect_response("**/v1/models"):
        await visitor.page.reload()
    await expect(offered(visitor)).to_have_count(0)
    await visitor.ask("?")
    assert writers(site) == [LIVE]
