"""Learning from samples ends near the best policy where the KL penalty is right, and elsewhere where it is not.

The bench measures it on three seeds (`make bench BENCH=optimum`); this is one of them.
"""

from typing import get_args

import pytest

from tests.benches.optimum import BETA, PENALTIES, Algorithm, train
from tests.support.enumerable import EnumerableWorld


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda penalty: penalty.name.replace(" ", "-"))
@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_the_right_penalties_end_near_the_optimum_and_the_wrong_ones_do_not(penalty, algorithm):
    world = EnumerableWorld.drawn(0)
    policy_PXV = train(world, algorithm, penalty, seed=0)
    assert penalty.at_least <= world.gap(policy_PXV, BETA) <= penalty.at_most
