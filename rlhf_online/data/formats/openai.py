"""OpenAI's preference fine-tuning rows: `input.messages`, `preferred_output` and `non_preferred_output`."""

from collections.abc import Iterator

from rlhf_online.data import fields
from rlhf_online.data.formats import trl
from rlhf_online.data.rows import Row
from rlhf_online.errors import RowRefused

FIELDS = frozenset(("input", "preferred_output", "non_preferred_output"))


def read(row: fields.Values) -> Iterator[Row]:
    """Raises RowRefused."""
    asked = fields.mapping(row.get("input"), "'input'")
    sides = {"chosen": row.get("preferred_output"), "rejected": row.get("non_preferred_output")}
    for name, side in sides.items():
        if not isinstance(side, list) or len(side) != 1:
            raise RowRefused("shape", f"{name}: expected a list of one message of the assistant's")
    circumstances = {name: value for name, value in row.items() if name in fields.CIRCUMSTANCES}
    yield trl.pair({**circumstances, "prompt": asked.get("messages"), "tools": asked.get("tools"), **sides})
