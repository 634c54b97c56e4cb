"""Learning as operators see and steer it: paused or not, and what each objective counts. Calls ask the store of
versions: handlers run them in a thread."""

from collections.abc import Mapping
from typing import Annotated, Any

import structlog
from pydantic import Field
from typing_extensions import TypedDict

from rlhf_online import learning
from rlhf_online.errors import FileDamaged, InvalidInput
from rlhf_online.learning import Switch
from rlhf_online.rewards import weights
from rlhf_online.rewards.rules import record
from rlhf_online.state import StateDir
from rlhf_online.versions.registry import Registry
from services.chat.bodies.api_error import ApiError
from services.chat.bodies.documented import documented
from services.chat.bodies.validation import Expected, Model, validate


class PauseRequest(Model):
    """Pauses learning."""

    reason: str = Field(default="", max_length=1024, description="Why; shown as long as it is paused.")


class WeightsRequest(Model):
    """Changes what objectives count."""

    weights: Annotated[dict[str, float], Expected("an object of numbers", whole=True, code="invalid_type")] = Field(
        description="A number from 0 to 1e6 by the objective's name; those that are not named stay."
    )


@documented
class LearningState(TypedDict):
    """Whether the models learn, and by what."""

    paused: bool
    """True while neither the reward model nor the policy learns; votes are taken all the same."""
    reason: str
    """Why it is paused, where somebody said so."""
    changed_ms: int
    """Since when it is so, Unix time in milliseconds; 0 if it was never paused."""
    weights: dict[str, float]
    """What each objective counts in the scores that the policy learns from: of the reward model's only the proportions
    matter, `rule:NAME` is how often that rule's reward is added. Empty before the first reward model."""


class Learning:
    """The switch and the weights, both beside the live version; `state`: where an earlier release wrote the weights."""

    def __init__(self, registry: Registry, state: StateDir) -> None:
        self._registry = registry
        self._state = state
        self._objectives: tuple[str, list[str]] = ("", [])
        """Of a reward version, whose files need not be looked at again."""
        self._log = structlog.get_logger()

    def state(self) -> LearningState:
        """As it is now."""
        return self._told(learning.read(self._registry.store))

    def pause(self, values: Mapping[str, Any], key_id: str) -> LearningState:
        """Raises ApiError (400)."""
        switch = learning.pause(self._registry.store, validate(PauseRequest, values).reason)
        self._log.warning("learning is paused", key=key_id)
        return self._told(switch)

    def resume(self, key_id: str) -> LearningState:
        """Go on."""
        switch = learning.resume(self._registry.store)
        self._log.info("learning goes on", key=key_id)
        return self._told(switch)

    def set_weights(self, values: Mapping[str, Any], key_id: str) -> LearningState:
        """Raises ApiError: 400, or 409 before the first reward model."""
        changes = validate(WeightsRequest, values).weights
        try:
            objectives = self._known_objectives()
        except InvalidInput as error:
            raise ApiError(str(error), status=409, type="conflict_error", code="no_reward_model") from error
        try:
            rules = record.objectives(self._registry.store)
            weights.change(self._registry.store, self._state, changes, objectives, rules)
        except InvalidInput as error:
            raise ApiError(f"weights: {error}", param="weights", code="invalid_value") from error
        self._log.info("weights of the objectives changed", key=key_id, **changes)
        return self.state()

    def _told(self, switch: Switch) -> LearningState:
        try:
            store = self._registry.store
            stored, rules = weights.read(store, self._state), record.objectives(store)
            known = weights.applicable(stored, self._known_objectives(), rules)
        except (InvalidInput, FileDamaged):  # none yet, or a record that the trainer waits for, and says so
            known = {}
        return {
            "paused": switch.paused,
            "reason": switch.reason,
            "changed_ms": switch.changed_ms,
            "weights": known,
        }

    def _known_objectives(self) -> list[str]:
        """Raises InvalidInput before the first reward version, FileDamaged."""
        live = self._registry.live("reward") or ""
        if not live or self._objectives[0] != live:
            self._objectives = live, weights.objectives(self._registry)
        return self._objectives[1]
