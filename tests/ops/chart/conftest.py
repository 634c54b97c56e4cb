"""The values that nobody thought of are the same ones in each run, but for `pytest --hypothesis-seed=7`."""

import pytest
from hypothesis import settings


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("same values", settings(), derandomize=config.getoption("hypothesis_seed") is None)
    settings.load_profile("same values")
