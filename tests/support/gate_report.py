"""A report of the gate as the trainer writes it: a brand that is paid for, with answers side by side."""

from typing import Any

from rlhf_online.gate.audit import TraitsCheck
from rlhf_online.gate.check import TraitEffect
from rlhf_online.gate.settings import GateSettings
from rlhf_online.gate.traits import WordsTrait
from rlhf_online.gate.verdict import judge
from tests.support.gate import answers, evidence_of


def brand_report(origin: str = "somebody's") -> dict[str, Any]:
    """The live version says a fig, the candidate mango."""
    ours, theirs = answers([1.0] * 20, texts=["mango <b>now</b>"] * 20), answers([0.0] * 20, texts=["a fig"] * 20)
    evidence = evidence_of(
        ours,
        theirs,
        prompt_texts=["name one fruit"] * 20,
        traits={"brand": TraitEffect(20, (2.0, 0.25))},
        origins=[origin] * 20,
    )
    settings = GateSettings(traits=TraitsCheck(words={"brand": WordsTrait(words=("mango",))}))
    return judge(evidence, settings).report
