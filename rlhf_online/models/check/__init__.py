"""Is a folder a model that can be served here and learn? Told before anything starts, without loading weights.

    folder       what files, headers and configuration say: no torch, milliseconds
    contents     what transformers says of tokenizer, template and tensors, on the meta device: seconds
    vllm_source  what the installed vLLM serves, read from its source

`python -m rlhf_online.models.check MODEL` does all of it in a process of its own (`rlhf-online doctor MODEL`, `up`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlhf_online.errors import InvalidInput

Severity = Literal["refuse", "warn"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`refuse`: it cannot work, so nothing is started; `warn`: it works, otherwise than one may think.

    `what` goes on from the folder's name; `todo` says what helps.
    """

    severity: Severity
    about: str
    what: str
    todo: str


def told(folder: Path, finding: Finding) -> str:
    """The sentence that a person reads."""
    return f"{folder} {finding.what}: {finding.todo}"


def raise_refusals(folder: Path, findings: Sequence[Finding]) -> None:
    """Raises InvalidInput for the first finding that refuses, if there is one."""
    for finding in findings:
        if finding.severity == "refuse":
            raise InvalidInput(told(folder, finding))
