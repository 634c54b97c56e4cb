"""The closed sets of labels are those of the rooms that they stem from: what a room may say, a label may be."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import grpc
import pytest

from rlhf_online.canary.decision import Action
from rlhf_online.canary.tally import GUARDS
from rlhf_online.events import AI, SIGNALS, FeedbackKind
from rlhf_online.gate.settings import GateSettings
from rlhf_online.metrics import labels
from rlhf_online.metrics.catalogue import Label
from rlhf_online.training.ledger import Disposition
from rlhf_online.training.policy.algorithms import ALGORITHMS
from rlhf_online.versions.manifest import State, audience_kind
from rlhf_online.watch.monitors import MONITORS
from services.chat.bodies.api_error import ApiError, outcome
from services.chat.console.gauges import label_of
from services.standalone.settings import SERVICES

ROOT = Path(__file__).resolve().parents[2]


def said(pattern: str, *places: str) -> set[str]:
    """What the groups of `pattern` are in the sources of these places."""
    files = [file for place in places for file in ROOT.glob(place)]
    assert files, places
    return {"".join(found.groups("")) for file in files for found in re.finditer(pattern, file.read_text())}


@pytest.mark.parametrize(
    ("label", "source"),
    [
        (labels.FEEDBACK_KIND, [*(kind.__name__.lower() for kind in get_args(FeedbackKind)), "unknown"]),
        (labels.SERVICE, SERVICES),
        (labels.KIND, map(label_of, ("policy", audience_kind("brief"), "reward"))),
        (labels.STATE, get_args(State)),
        (labels.DISPOSITION, [*(word for word in get_args(Disposition) if word != "rollout"), "pending"]),
        (
            labels.SIGNAL,
            {*SIGNALS, AI} | said(r"\"(\w*assisted)\"", "rlhf_online/training/votes/raters.py"),
        ),
        (labels.ALGORITHM, ALGORITHMS),
        (labels.CHECK, GateSettings().named),
        (labels.GUARDRAIL, GUARDS),
        (labels.MONITOR, MONITORS),
        (labels.CANARY_ACTION, [word.replace(" ", "_") for word in get_args(Action) if word != "hold"]),
        (labels.PHASE, said(r"reporter\.phase\(\"(\w+)\"\)", "rlhf_online/training/*.py")),
        (labels.SKIPPED, said(r"skipped\[\"(\w+)\"\]", "rlhf_online/training/**/*.py")),
        (
            labels.CLOSED,
            said(
                r"(?:leave|count)\(\"(\w+)\"|else \"(silent)\"|\"(request_too_slow)\" if",
                "services/chat/transport/[ct]*.py",
            )
            | said(r"code=\"(\w+)\"", "services/chat/transport/heads.py"),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Label) else "",
)  # fmt: skip
def test_a_label_may_be_what_its_room_says(label: Label, source: Iterable[str]) -> None:
    assert {*label.values} == {*source}


def test_a_requests_outcome_is_known_whatever_its_status() -> None:
    found = {outcome(ApiError("why", status=status)) for status in range(400, 600)} | {outcome(KeyError("a defect"))}
    assert found <= {*labels.REQUEST_OUTCOME.values} and found <= {*labels.FEEDBACK_OUTCOME.values}


def test_a_dead_letters_reason_is_known() -> None:
    found = said(r"UnusableVote\(\"(\w+)\"", "rlhf_online/feedback/*.py")
    found |= said(r"dead_letters\.add\([^\"]+?(?:\"[^\"]*\")?, \"(\w+)\"", "rlhf_online/training/intake/intake.py")
    found |= said(r"\"(empty|vocabulary|context)\"", "rlhf_online/models/limits.py")
    assert found == {*labels.DEAD_LETTER.values}


def test_an_answers_reason_to_be_left_out_is_known() -> None:
    documented = said(r"(?m)^        (\w+) {2,}\S", "rlhf_online/rollout/eligibility.py")
    assert documented == {*labels.LEFT_OUT.values}


def test_what_the_gate_measures_is_what_its_figures_name() -> None:
    measured = said(r"\"(\w+)\":", "rlhf_online/gate/*.py") | said(r"share_finding\(\"(\w+)\"", "rlhf_online/gate/*.py")
    assert {*labels.GATE_FIGURE.values} <= measured


def test_a_score_requests_outcome_is_a_status_of_grpc() -> None:
    answered = said(r"StatusCode\.([A-Z_]+)", "services/reward/server.py")
    assert {*labels.SCORED.values} == {"ok", *(grpc.StatusCode[name].name.lower() for name in answered)}
