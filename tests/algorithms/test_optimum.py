"""Learning from samples ends near the best policy where the KL penalty is right, and elsewhere where it is not.

The bench measures all of it (`make bench BENCH=optimum`); this is a third of one line in either direction.
"""

import pytest

from rlhf_online.simulation.enumerable import EnumerableWorld
from tests.benches.optimum import BETA, PENALTIES, train


@pytest.mark.parametrize(("name", "algorithm"), [("k1 in the reward", "ppo"), ("k3 as a loss", "rloo")])
def test_the_right_penalty_ends_near_the_optimum_and_a_wrong_one_does_not(name: str, algorithm):
    [penalty] = [penalty for penalty in PENALTIES if penalty.name == name]
    world = EnumerableWorld.drawn(0)
    policy_PXV = train(world, algorithm, penalty, seed=0, iterations=50)
    assert penalty.at_least <= world.gap(policy_PXV, BETA) <= penalty.at_most
