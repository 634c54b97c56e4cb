"""What the trainer wrote of its monitors, in the console's overview."""

from pathlib import Path

import yaml

from rlhf_online.state import StateDir
from rlhf_online.watch.monitors import MONITORS, RUNBOOKS, Reading
from tests.support.chat_service import running
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[4]


async def test_each_monitor_is_told_with_its_runbook_and_names_nobody(tmp_path: Path) -> None:
    poison = Reading(evidence=12.5, says="of 900 comparisons, 1 people prefer words", rows=({"person": "beef"},))
    drift = Reading(evidence=0.25, says="900 votes were such as were foretold")
    told = {"poison": poison.to_json(), "drift": drift.to_json(), "format": Reading().to_json()}
    async with running(tmp_path) as service:
        _, before = await service.get("/v1/console")
        assert [item["monitor"] for item in before["watch"]] == [*MONITORS]
        assert not any(item["alarm"] or item["says"] for item in before["watch"])
        StateDir(tmp_path / "state").write_status("watch", {"monitors": told})

        async def told_anew() -> bool:
            return (await service.get("/v1/console"))[1]["watch"] != before["watch"]

        await eventually(told_anew, 20, "the monitors' readings")
        _, after = await service.get("/v1/console")
    watch = {item["monitor"]: item for item in after["watch"]}
    assert watch["poison"] == {
        "monitor": "poison", "evidence": 12.5, "alarm": True, "says": poison.says,
        "runbook": "docs/runbooks/RlhfVotesPoisoned.md",
    }  # fmt: skip
    assert (watch["drift"]["evidence"], watch["drift"]["alarm"]) == (0.25, False)
    assert watch["format"]["evidence"] is None
    assert "beef" not in str(after)


def test_each_monitors_runbook_is_that_of_its_alert() -> None:
    rules = yaml.safe_load((ROOT / "helm/rlhf-online/files/alerts/learning.yaml").read_text())
    alerts = {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    for monitor in MONITORS:
        assert monitor in alerts[RUNBOOKS[monitor]], monitor
        assert (ROOT / "docs" / "runbooks" / f"{RUNBOOKS[monitor]}.md").is_file()
