"""Before training goes on from a checkpoint: is it of this log, and of this registry's line of versions?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from rlhf_online.errors import PositionLost, VersionCorrupt
from rlhf_online.eventlog.gap import Place, accept
from rlhf_online.training.intake import Intake
from rlhf_online.training.progress import Progress
from rlhf_online.training.resume_checks import check_lineage, check_log_position


class Log:
    """The intake's view of a log of which the records before the 20th are gone."""

    position: Mapping[str, int] = {"local": 17}

    def resume_position(self, identity: str, position: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
        assert (identity, position) == ("before", {"local": 17})
        return {"local": 20}, ["records 17 to 19 were removed: 3 are missing"]


def _stored(**values: Any) -> Progress:
    return Progress(log_identity="before", policy_version="policy-000002", position={"local": 17}, **values)


def test_a_checkpoint_of_this_log_goes_on_where_it_stands(tmp_path: Path) -> None:
    stored, log = _stored(), Log()
    check_log_position(stored, "before", cast(Intake, log), tmp_path)
    assert (stored.log_identity, stored.position, log.position) == ("before", {"local": 17}, {"local": 17})


def test_a_checkpoint_of_another_log_stops_the_trainer_and_names_both(tmp_path: Path) -> None:
    with pytest.raises(PositionLost, match=r"belongs to the log before, but this log is after: .*gap accept"):
        check_log_position(_stored(), "after", cast(Intake, Log()), tmp_path)


@pytest.mark.parametrize("identity", ["before", "after"])
def test_over_a_gap_that_was_accepted_at_its_place_it_goes_on_behind_it(tmp_path: Path, identity: str) -> None:
    accept(tmp_path, Place("before", {"local": 17}))
    stored, log = _stored(), Log()
    check_log_position(stored, identity, cast(Intake, log), tmp_path)
    assert (stored.log_identity, stored.position, log.position) == (identity, {"local": 20}, {"local": 20})


def test_a_gap_that_was_accepted_elsewhere_is_not_this_one(tmp_path: Path) -> None:
    accept(tmp_path, Place("before", {"local": 16}))
    with pytest.raises(PositionLost):
        check_log_position(_stored(), "after", cast(Intake, Log()), tmp_path)


def test_the_kl_counts_from_a_reference_that_the_registry_knows() -> None:
    stored = _stored(reference="policy-000001")
    check_lineage(stored, ["policy-000000", "policy-000001"])
    assert stored.reference == "policy-000001"
    old = _stored()  # of a release that did not write it
    check_lineage(old, ["policy-000000", "policy-000001"])
    assert old.reference == "policy-000000"
    with pytest.raises(VersionCorrupt, match=r"counts from policy-000001, and here .* from policy-000000, policy-7:"):
        check_lineage(stored, ["policy-000000", "policy-7"])
