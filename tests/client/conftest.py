"""A running chat service with a fake engine behind it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.chat_service import Service, running


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(tmp_path) as service:
        yield service
