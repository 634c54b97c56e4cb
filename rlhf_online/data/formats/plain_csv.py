"""CSV with a first row of names: `prompt` with `chosen` and `rejected`, or with `completion` and `label`.

A prompt is a text, or the JSON of a list of messages. Beside them stand whatever circumstances are known
(`fields.CIRCUMSTANCES`): person, created_at, reason, reasons with semicolons between, objective, strength, …
"""

import json
from collections.abc import Iterator

from rlhf_online.data import fields
from rlhf_online.data.formats import trl
from rlhf_online.data.rows import Row
from rlhf_online.errors import RowRefused

FIELDS = frozenset(("prompt", "chosen", "rejected", "completion", "label"))


def read(row: fields.Values) -> Iterator[Row]:
    """Raises RowRefused."""
    if not fields.text(row, "prompt").strip():
        raise RowRefused("empty", "there is no prompt")
    values = {**row, "prompt": _prompt(row["prompt"])}
    if "chosen" in row or "rejected" in row:
        yield from trl.read_preference(values)
    elif "completion" in row:
        yield from trl.read_unpaired(values)
    else:
        raise RowRefused("shape", "expected the columns 'chosen' and 'rejected', or 'completion' and 'label'")


def _prompt(text: str) -> object:
    if text.lstrip().startswith("[{"):
        try:
            return json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            return text
    return text
