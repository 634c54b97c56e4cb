"""Are the golden prompts answered as the operator expects, and none worse than the live version answers it?"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from rlhf_online.gate.check import Check, Evidence, Finding, GoldenAnswer

SHOWN, CHARACTERS = 20, 300
"""Prompts that fail in a report's table, those first that the live version passes, and characters of an answer."""


class GoldenCheck(Check):
    file: Path | None = Field(
        default=None, description="TOML file of prompts with expectations, which `gate/golden_prompts.py` describes."
    )
    min_share: float = Field(default=0.0, ge=0, le=1, description="Least share of them that passes.")
    max_lost: int = Field(
        default=0, ge=0, description="How many at most that the live version passes and the candidate fails."
    )

    def examine(self, evidence: Evidence) -> Finding:
        """The answers are nearly greedy: what passes once passes again. An answer that the live version did not give
        is neither kept nor lost."""
        golden = evidence.golden
        if not golden:
            return Finding(figures={})
        judged = [_Judged.of(item) for item in golden]
        share = sum(not each.failures for each in judged) / len(judged)
        lost = [each.name for each in judged if each.failures and each.before == ()]
        figures = {"golden": share, "golden_n": len(golden), "golden_lost": len(lost)}
        if known := [each.before for each in judged if each.before is not None]:
            figures["live_golden"] = sum(not failures for failures in known) / len(known)
        failed = sorted((each for each in judged if each.failures), key=lambda each: each.before != ())
        return Finding(
            figures=figures,
            objections=tuple(self._objections(share, lost)),
            rows=tuple(each.row for each in failed[:SHOWN]),
        )

    def _objections(self, share: float, lost: Sequence[str]) -> list[str]:
        found = []
        if share < self.min_share:
            found.append(f"{share:.0%} of the golden prompts pass, fewer than {self.min_share:.0%}")
        if len(lost) > self.max_lost:
            names = ", ".join(lost[:5]) + (", …" if len(lost) > 5 else "")
            found.append(f"{len(lost)} golden prompts fail that the live version passes > {self.max_lost}: {names}")
        return found


class _Judged(NamedTuple):
    """What an answer fails, and what the live version's does; None where there is none."""

    name: str
    failures: tuple[str, ...]
    before: tuple[str, ...] | None
    row: dict[str, str | float]

    @classmethod
    def of(cls, item: GoldenAnswer) -> "_Judged":
        failures = tuple(item.prompt.failures(item.candidate))
        before = None if item.live is None else tuple(item.prompt.failures(item.live))
        row: dict[str, str | float] = {
            "golden": item.prompt.name,
            "fails": "; ".join(failures),
            "live_fails": "not answered" if before is None else "; ".join(before) or "passes",
            "answer": item.candidate[:CHARACTERS],
            "live_answer": (item.live or "")[:CHARACTERS],
        }
        return cls(item.prompt.name, failures, before, row)
