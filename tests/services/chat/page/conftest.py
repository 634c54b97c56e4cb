"""One browser for all of these tests; each has a chat service with a fake engine, and visitors of its own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.chat_service import Service, running
from tests.support.chromium import CHROMIUM, By, Visitor, chromium

Visit = Callable[..., Awaitable[Visitor]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine, so the page is not tried: `make page` installs it (Debian, as root)")
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def site(tmp_path: Path, browser: Browser) -> AsyncIterator[Service]:
    async with running(tmp_path) as service:
        yield service


@pytest_asyncio.fixture(loop_scope="session")
async def visitors(browser: Browser) -> AsyncIterator[Visit]:
    """Opens a page: in a browser of its own, or as another tab (`beside`). No script of it may fail in the test."""
    came: list[Visitor] = []

    async def visit(
        url: str, by: By = "mouse", *, beside: Visitor | None = None, ready: bool = True, **options: Any
    ) -> Visitor:
        context = beside.page.context if beside else await browser.new_context(**{"locale": "en-GB", **options})
        came.append(Visitor(await context.new_page(), by))
        return await came[-1].visit(url, ready=ready)

    yield visit
    complaints = [complaint for visitor in came for complaint in visitor.complaints]
    for context in {visitor.page.context for visitor in came}:
        await context.close()
    assert complaints == []


@pytest_asyncio.fixture(loop_scope="session", params=["mouse", "keys"])
async def visitor(request: pytest.FixtureRequest, site: Service, visitors: Visit) -> Visitor:
    """Somebody on the page, once by mouse and once by keys."""
    by = cast(By, request.param)
    return await visitors(site.url, by, permissions=["clipboard-read", "clipboard-write"])
