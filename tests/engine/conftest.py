"""A fake engine behind a socket, and a store of versions."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlhf_online.versions import open_registry
from rlhf_online.versions.registry import Registry
from tests.support.fake_vllm import FakeVllm, fake_vllm


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeVllm]:
    async with fake_vllm(tmp_path) as engine:
        yield engine


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(tmp_path / "versions")
