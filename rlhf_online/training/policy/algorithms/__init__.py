"""The algorithms by which the policy learns, one file each, and the setting `[policy.algorithm]` that picks one.

An algorithm is a settings model: its fields are the table, `needs` says what an update must bring, and `objective`
makes of the update's answers what it minimises. A new one is a file here, its name in `AnyAlgorithm`, and a row in
`tests/benches/world.py` (docs/adding-an-algorithm.md).

Settings are read by the command line and by the process that starts the services, which must start at once and have no
torch. So these modules import no room that computes, except inside the methods that compute (tests/test_imports.py).
"""

from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from rlhf_online.training.policy.algorithms.best_of_n import BestOfN
from rlhf_online.training.policy.algorithms.dapo import DAPO
from rlhf_online.training.policy.algorithms.dr_grpo import DrGRPO
from rlhf_online.training.policy.algorithms.grpo import GRPO
from rlhf_online.training.policy.algorithms.gspo import GSPO
from rlhf_online.training.policy.algorithms.kto import KTO
from rlhf_online.training.policy.algorithms.online_dpo import OnlineDPO
from rlhf_online.training.policy.algorithms.ppo import PPO
from rlhf_online.training.policy.algorithms.reinforce import REINFORCE
from rlhf_online.training.policy.algorithms.rloo import RLOO

AnyAlgorithm = PPO | GRPO | DrGRPO | DAPO | GSPO | RLOO | REINFORCE | OnlineDPO | KTO | BestOfN
ALGORITHMS: dict[str, type[AnyAlgorithm]] = {kind.model_fields["name"].default: kind for kind in get_args(AnyAlgorithm)}


def _table(value: Any) -> Any:
    """A bare name stands for the algorithm with its defaults, and a table without one is PPO's.

    Refuses a setting of other algorithms, naming both.
    """
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict):
        return value
    value = {"name": "ppo"} | value
    chosen = ALGORITHMS.get(value["name"]) if isinstance(value["name"], str) else None
    if chosen is None:
        return value
    for setting in value.keys() - chosen.model_fields.keys():
        if owners := [name for name, kind in ALGORITHMS.items() if setting in kind.model_fields]:
            own = sorted(chosen.model_fields.keys() - {"name"})
            raise PydanticCustomError(
                "of_another_algorithm",
                "{setting} is a setting of {owners}; {name} has {own}",
                {"setting": setting, "owners": ", ".join(owners), "name": value["name"], "own": ", ".join(own)},
            )
    return value


Algorithm = Annotated[AnyAlgorithm, Field(discriminator="name"), BeforeValidator(_table)]
"""The setting `[policy.algorithm]`: the model whose `name` it gives."""
