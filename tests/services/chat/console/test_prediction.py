"""What the gate predicted and people said, from the log and the versions to the console, the metrics and `status`."""

from pathlib import Path

import pytest

from rlhf_online.cli import main
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.intervals import wilson
from rlhf_online.prediction import Counts
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from services.chat.console.comparing import compared, predicted
from tests.support.chat_service import Service, running
from tests.support.parted import fill
from tests.support.waiting import eventually


async def alarming(service: Service, alarm: bool) -> bool:
    return await service.metric("rlhf_gate_prediction_versions") > 0 and (
        await service.metric("rlhf_gate_prediction_alarm") == alarm
    )


@pytest.mark.parametrize(("liked", "alarm"), [(0.25, True), (0.6, False)], ids=["they disagree", "they agree"])
async def test_an_alarm_tells_that_people_disagree_with_the_gate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], liked: float, alarm: bool
) -> None:
    state = StateDir(tmp_path / "state")
    state.person_hash()  # by which the log names people
    with LocalLog(state.log) as log:
        names = fill(open_registry(state.versions), log, 6, liked=liked)
        async with running(tmp_path, log=log) as service:
            await eventually(lambda: alarming(service, alarm), 20, "the metric of the alarm")
            _, overview = await service.get("/v1/console")
            _, found = await service.get("/v1/console/versions")
            correlation = await service.metric("rlhf_gate_prediction_correlation")
            gap = await service.metric("rlhf_gate_prediction_gap")
    told, policies = overview["prediction"], found["policies"]
    assert told["versions"] == 5, "the live one's time is not over"
    assert bool(told["alarm"]) is alarm
    assert told["gap"] == gap == pytest.approx(liked - 0.57)
    assert told["correlation"] is None and correlation != correlation, "people say the same of all: no number"
    assert told["recent"] == pytest.approx(liked)
    assert policies["version"] == names and policies["said"] == [None, *[pytest.approx(liked)] * 6]
    assert policies["predicted"] == [None, *[pytest.approx(0.55 + n / 100) for n in range(6)]]
    assert policies["said_by"] == ["", *["pairs"] * 6] and policies["said_people"] == [None, *[40] * 6]
    assert policies["said_low"][1] == pytest.approx(wilson(liked, 40)[0])
    assert main(["status", "--state", str(state.root)]) == 0
    said = capsys.readouterr().out
    assert ("gate         people prefer the versions before to the last 5" in said) is alarm


def test_thumbs_tell_where_there_are_no_clear_pairs() -> None:
    liked, before, pair = (Counts(people=n, opinions=n, means=up) for n, up in ((50, 40), (50, 30), (2, 1)))
    found = compared({"win_rate": 0.6}, pair, liked, before)
    assert (found.by, found.said and found.said.value) == ("thumbs", pytest.approx(0.6))
    assert compared({}, pair, liked, Counts()).by == "pairs", "unclear, and all there is"
    assert compared({}, Counts(), liked, Counts()).row()["said"] is None
    clear = Counts(people=50, opinions=50, means=20)
    assert compared({}, clear, liked, before).by == "pairs"


def test_the_prediction_is_the_held_back_models_where_there_is_one() -> None:
    held_back = {"held_back_win_rate": 0.55, "held_back_win_rate_low": 0.5, "held_back_win_rate_high": 0.6}
    assert predicted({"win_rate": 0.7, "samples": 100.0, **held_back}) == (0.55, 0.5, 0.6)
    assert predicted({"win_rate": 0.7, "samples": 100.0}) == (0.7, *wilson(0.7, 100))
    assert predicted({"win_rate": 0.7}) == (0.7, None, None)
    assert predicted({}) == predicted({"win_rate": float("nan")}) == (None, None, None)
