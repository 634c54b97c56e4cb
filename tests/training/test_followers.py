"""Several ranks learn through the whole loop as one does: whichever is killed, and wherever, no vote is lost or learned
from twice; what they leave goes on with more ranks, with fewer, and with one."""

import signal
from pathlib import Path

import pytest

from rlhf_online.config import dump
from rlhf_online.errors import RanksFailed
from rlhf_online.training import distributed, followers
from rlhf_online.training.distributed import Order
from tests.support import ranked_trainer, ranks
from tests.support.trainer_world import LENIENT, world
from tests.training.test_loop import audit, cycles

KILL = signal.SIGKILL


@pytest.mark.parametrize(("sharding", "first", "second", "third"), [("none", 15, 30, 50), ("full", 90, 200, 150)])
def test_a_kill_of_any_rank_learns_exactly_once_and_other_numbers_of_ranks_go_on(
    sharding: str, first: int, second: int, third: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The held-back reward model learns, too; and a version that an operator goes back to is loaded by all. Of models
    that are sharded a rank is killed in the midst of a pass."""
    gate = LENIENT.model_copy(update={"held_back": LENIENT.held_back.model_copy(update={"share": 0.3})})
    with world(tmp_path, gate=gate) as tiny:
        settings = tiny.settings.model_copy(update={"reward_address": tiny.service.address, "sharding": sharding})
        dump(settings, config := tmp_path / "trainer.toml")
        tiny.chat(30)
        for struck, at in ((1, first), (0, second)):
            found = ranks.run(2, ranked_trainer.train, config, {struck: (at, KILL)})
            assert found[struck] is KILL and isinstance(found[1 - struck], RanksFailed), found
            assert f"rank {struck} (" in str(found[1 - struck])
            assert tiny.registry.versions("policy") == ["policy-000000"], "nothing of it is published"
        leads, follows = ranks.run(2, ranked_trainer.train, config)
        assert leads == follows and len(leads) > 30
        assert (sharding == "full") == ("reduce_scatter_single" in leads)
        assert tiny.registry.live("policy") != "policy-000000"

        tiny.registry.rollback("policy", reason="an operator said so")
        tiny.chat(20)
        found = ranks.run(3, ranked_trainer.train, config, {2: (third, KILL)})
        assert [isinstance(outcome, RanksFailed) for outcome in found] == [True, True, False], found
        leads, *follow = ranks.run(3, ranked_trainer.train, config)
        assert follow == [leads, leads]
        with tiny.trainer() as trainer:
            tiny.chat(12)
            assert cycles(trainer) == 1
            assert trainer.parts.learners.policy.updates == 3
            audit(tiny, trainer)
            monkeypatch.setattr(distributed, "next_order", lambda: Order("sing"))
            with pytest.raises(RanksFailed, match="rank 0 orders 'sing', which this rank does not know"):
                followers.carry_out_orders(trainer.parts.learners, None, tiny.registry.path)
