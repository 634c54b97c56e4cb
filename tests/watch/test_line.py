"""What creeps over a line of versions, each of which passed the gate."""

import json
import math
from collections.abc import Mapping

import pytest

from rlhf_online.watch.line import Line

MAX_GAP = 0.5
NONE = Line()
NO_FIGURES: Mapping[str, float] = {}


def grown(
    *steps: tuple[float, float], stderr: float = 0.05, line: Line = NONE, figures: Mapping[str, float] = NO_FIGURES
) -> Line:
    """A line with one more version a step of (gain, held-back gain)."""
    for gain, held_back in steps:
        number = len(line.points)
        measured = {"gain": gain, "held_back_gain": held_back, "proxy_gap_stderr": stderr, **figures}
        line = line.after(f"policy-{number + 1}", f"policy-{number}", "policy-0", 0.5 * number, measured)
    return line


def evidence(line: Line, monitor: str) -> float:
    return {str(name): reading.evidence for name, reading in line.readings(MAX_GAP).items()}[monitor]


def test_small_gaps_that_each_pass_are_over_optimisation_together() -> None:
    honest = grown(*[(0.3, 0.2)] * 5)
    assert evidence(honest, "over_optimisation") == 0.0, "the held-back model likes the last one best"
    hacked = grown(*[(0.3, -0.05)] * 3, line=honest)
    # Since the fifth: .9 by their own, −.15 by the other, ± 1.96 · .05 √3.
    expected = (0.9 + 0.15 - 1.959964 * 0.05 * math.sqrt(3)) / MAX_GAP
    assert evidence(hacked, "over_optimisation") == pytest.approx(expected, rel=1e-4)
    assert hacked.readings(MAX_GAP)["over_optimisation"].alarm


def test_chance_is_no_over_optimisation() -> None:
    noise = grown((0.3, 0.3), (0.2, -0.1), (0.2, -0.1), stderr=0.3)
    assert evidence(noise, "over_optimisation") < 1
    assert math.isnan(evidence(grown((0.0, 0.0), stderr=0.0), "over_optimisation")), "the held-back model knew nothing"


def test_the_curves_over_kl_are_in_the_rows() -> None:
    rows = grown((0.5, 0.4), (0.5, -0.1)).readings(MAX_GAP)["over_optimisation"].rows
    assert rows == (
        {"version": "policy-1", "kl": 0.0, "own": 0.5, "held_back": 0.4},
        {"version": "policy-2", "kl": 0.5, "own": 1.0, "held_back": pytest.approx(0.3)},
    )


def test_answers_are_compared_with_those_of_the_beginning() -> None:
    begun = {"live_length": 10.0, "live_distinct": 0.8, "live_entropy": 1.0, "trait_format_live_rate": 0.1}
    now = {"length": 12.0, "distinct": 0.7, "entropy": 0.8, "trait_format_rate": 0.1}
    line = grown((0.1, 0.1), figures=begun | now)
    assert [reading.alarm for reading in line.readings(MAX_GAP).values()] == [False] * 4
    later = {"live_length": 19.0, "live_distinct": 0.5, "live_entropy": 0.5, "trait_format_live_rate": 0.3}
    now = {"length": 21.0, "distinct": 0.39, "entropy": 0.2, "trait_format_rate": 0.45}
    line = grown((0.1, 0.1), line=line, figures=later | now)
    assert evidence(line, "length") == pytest.approx(math.log(2.1) / math.log(2))
    assert evidence(line, "format") == pytest.approx(0.35 / 0.3)
    assert evidence(line, "diversity") == pytest.approx(math.log(0.8 / 0.39) / math.log(2))
    shorter = grown((0.1, 0.1), figures=begun | {"length": 4.0, "distinct": 0.9})
    assert evidence(shorter, "length") > 1
    assert evidence(shorter, "diversity") == 0.0
    assert math.isnan(evidence(shorter, "format"))


def test_a_version_that_was_taken_back_leaves_the_line_and_another_reference_begins_one() -> None:
    line = grown((0.2, 0.2), (0.3, -0.3))
    after = line.after("policy-3", "policy-1", "policy-0", 0.7, {"gain": 0.1, "held_back_gain": 0.1})
    assert [point.version for point in after.points] == ["policy-1", "policy-3"]
    anew = after.after("policy-4", "policy-3", "policy-3", 0.1, {"gain": 0.1, "live_length": 5.0, "length": 6.0})
    assert [point.version for point in anew.points] == ["policy-4"]
    assert anew.begun == {"length": 5.0}


def test_it_goes_on_after_a_restart() -> None:
    line = grown((0.2, 0.2), figures={"length": 12.0, "live_length": 10.0})
    assert Line.from_json(json.loads(json.dumps(line.to_json()))) == line
    assert Line.from_json({}) == Line()
