"""The trainer as a consumer of the event log.

    source ──▶ decode ──▶ join ──▶ vote ──▶ votes that wait for a cycle    (`joined_votes`)
                 │          └──▶ orphaned ─┬─▶ dead letters                (`dead_letters`)
                 ├─ undecodable, damaged ──┘
                 └─ completions ──▶ what the policy update needs           (`policy_inputs`)

`Intake` reads, and keeps the parts in step with the log position.
"""

from rlhf_online.training.intake.intake import Intake, IntakeSettings

__all__ = ["Intake", "IntakeSettings"]
