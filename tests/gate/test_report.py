"""What people read of a verdict."""

import json
import math

from rlhf_online.gate.report import TEXT
from rlhf_online.gate.settings import GateSettings
from rlhf_online.gate.verdict import judge
from tests.support.gate import answers, evidence_of


def test_a_report_says_by_check_what_was_measured_against_which_limits_and_shows_answers_side_by_side() -> None:
    ours = answers([1.0, -1.0, math.nan, 0.0], [9, 9, 9, 9], texts=["a", "b", "c", "x" * 2 * TEXT])
    evidence = evidence_of(ours, answers([0.0] * 4), prompt_texts=["p" * 2 * TEXT, "q", "r", "s"], origins=list("klmn"))
    verdict = judge(evidence, GateSettings())
    report = verdict.report
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert not report["passed"] and report["samples"] == 4
    assert [check["name"] for check in report["checks"]] == list(GateSettings().named)
    assert [objection for check in report["checks"] for objection in check["objections"]] == list(verdict.reasons)
    [length] = [check for check in report["checks"] if check["name"] == "length"]
    assert not length["passed"] and length["limits"] == {"max_ratio": 1.5, "min_ratio": 0.3}
    assert length["figures"] == {"length": 9.0, "live_length": 4.0, "length_ratio": 2.25}
    shown = [report["examples"][place] for place in length["examples"]]
    assert len(shown) == 3 and shown[0]["candidate"] == "a" and shown[0]["live"] == "w9 w10 w11 w12"
    assert shown[0]["prompt"] == "… " + "p" * TEXT and shown[0]["origin"] == "k"
    assert (shown[1]["score"], shown[1]["live_score"], shown[2]["score"]) == (-1.0, 0.0, None)  # no number: none


def test_its_size_is_bounded() -> None:
    long = answers([0.0] * 40, texts=["wörter " * 500] * 40)
    report = judge(evidence_of(long, long, prompt_texts=["p" * 100_000] * 40), GateSettings()).report
    assert len(json.dumps(report)) < 3 * len(GateSettings().named) * 3 * 2 * TEXT
