"""The algorithms' names, wherever they are listed."""

import re
from pathlib import Path

from rlhf_online.training.policy.algorithms import ALGORITHMS
from tests.benches.world import ROWS

DOCS = Path(__file__).resolve().parents[4] / "docs"


def test_each_has_a_row_in_the_bench():
    assert ROWS.keys() == ALGORITHMS.keys()
    for name, row in ROWS.items():
        assert row.settings(name, "full").algorithm.name == name


def test_each_has_a_row_in_the_table_of_the_decision():
    text = (DOCS / "decisions" / "0008-policy-update.md").read_text()
    assert re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE) == list(ALGORITHMS)


def test_the_guide_shows_the_file_as_it_is():
    source = (DOCS.parent / "rlhf_online" / "training" / "policy" / "algorithms" / "gspo.py").read_text()
    for block in re.findall(
        r"^```python\n(.*?)^```", (DOCS / "adding-an-algorithm.md").read_text(), re.MULTILINE | re.DOTALL
    ):
        assert block in source
