"""What holds for the tests of every room."""

import os
import sys
from collections.abc import Iterator

import pytest

# With small tensors torch's threads only wait for one another, for minutes where others use the cores as well.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def transformers_left_as_it_was() -> Iterator[None]:
    """Two loads at once leave transformers unable to tie weights: the test that did it fails, not one far behind it."""
    yield
    if "transformers.modeling_utils" in sys.modules:
        from transformers import PreTrainedModel

        assert "tie_weights" in PreTrainedModel.tie_weights.__qualname__, "load models under rlhf_online.models.loading"
