"""What the policy update needs of the log: people's answers, recent prompts, and reference answers for the scores."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from rlhf_online.events import Completion, Erasure
from rlhf_online.keystore.owned import is_shredded
from rlhf_online.models.limits import ModelLimits
from rlhf_online.rollout.buffer import RolloutBuffer
from rlhf_online.rollout.eligibility import eligible_rollouts

Tokens = tuple[int, ...]


class PolicyInputs:
    """Holds the last `max_prompts` different prompts, and the first `max_reference_answers` answers of the log."""

    def __init__(
        self,
        buffer: RolloutBuffer,
        *,
        limits: ModelLimits,
        eos_ids: Collection[int],
        max_prompts: int,
        max_reference_answers: int,
    ) -> None:
        self.buffer = buffer
        self.reference_answers: list[tuple[Tokens, Tokens]] = []
        """(prompt, answer): scores are normalised on them."""
        self.left_out: Counter[str] = Counter()
        """Answers that may not train the policy, by reason."""
        self._limits = limits
        self._eos_ids = eos_ids
        self._max_prompts = max_prompts
        self._max_reference_answers = max_reference_answers
        self._prompts: dict[Tokens, tuple[str, str]] = {}
        """With whose conversation each stems from, and the person, of the last time that it was asked."""
        self._reference_whose: list[tuple[str, str]] = []
        """Likewise, of each of `reference_answers`."""

    @property
    def prompts(self) -> list[Tokens]:
        """Different prompts, those asked most recently last."""
        return list(self._prompts)

    def origin(self, prompt: Tokens) -> str:
        """Whose conversation one of `prompts` stems from."""
        return self._prompts.get(prompt, ("", ""))[0]

    def asked_by(self, prompt: Tokens) -> str:
        """Who asked it last; "" for nobody."""
        return self._prompts.get(prompt, ("", ""))[1]

    def add(self, completion: Completion, *, held_out: bool) -> None:
        """Keep its prompt and answers, if they may train the policy.

        Implicit signals are compared with reference answers, which is learning: none is of a conversation `held_out`,
        be it from both reward models or from the policy's.
        """
        rollouts, left_out = eligible_rollouts(completion, self._eos_ids, self._limits)
        self.left_out += left_out
        if not rollouts:
            return
        self.buffer.add(rollouts)
        prompt = completion.prompt_token_ids
        self._prompts.pop(prompt, None)
        self._prompts[prompt] = completion.origin, completion.person
        if len(self._prompts) > self._max_prompts:
            del self._prompts[next(iter(self._prompts))]
        if not held_out:
            room = self._max_reference_answers - len(self.reference_answers)
            self.reference_answers += [(item.prompt_token_ids, item.token_ids) for item in rollouts[:room]]
            self._reference_whose += [(item.origin, item.person) for item in rollouts[:room]]

    def erase(self, erasure: Erasure) -> None:
        """Let go of what stems from that conversation, or from all of that person's."""

        def erased(whose: tuple[str, str]) -> bool:
            return whose[1] == erasure.person if erasure.whole else whose[0] == erasure.origin

        self.buffer.erase(erasure)
        self._prompts = {prompt: whose for prompt, whose in self._prompts.items() if not erased(whose)}
        kept = [number for number, whose in enumerate(self._reference_whose) if not erased(whose)]
        self.reference_answers = [self.reference_answers[number] for number in kept]
        self._reference_whose = [self._reference_whose[number] for number in kept]

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes, all but the buffer."""
        return {
            "prompts": [{"prompt": prompt, **_whose(*whose)} for prompt, whose in self._prompts.items()],
            "reference_answers": [
                {"pair": pair, **_whose(*whose)}
                for pair, whose in zip(self.reference_answers, self._reference_whose, strict=True)
            ],
            "left_out": self.left_out,
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        prompts, pairs = values["prompts"], values["reference_answers"]
        if not any(isinstance(item, dict) for item in (*prompts, *pairs)):  # as earlier releases wrote them
            none = [""] * len(prompts)  # of the first nobody knows whose they are
            named = zip(prompts, values.get("prompt_origins", none), values.get("prompt_people", none), strict=True)
            prompts = [{"prompt": prompt, "origin": origin, "owners": [person]} for prompt, origin, person in named]
            origins = values.get("reference_origins", [""] * len(pairs))
            pairs = [{"pair": pair, "origin": origin} for pair, origin in zip(pairs, origins, strict=True)]
        kept = [item for item in prompts if not is_shredded(item)]
        self._prompts = {tuple(item["prompt"]): (item["origin"], _person(item)) for item in kept}
        kept = [item for item in pairs if not is_shredded(item)]
        self.reference_answers = [(tuple(prompt), tuple(answer)) for prompt, answer in (item["pair"] for item in kept)]
        self._reference_whose = [(item["origin"], _person(item)) for item in kept]
        self.left_out = Counter(values["left_out"])


def _whose(origin: str, person: str) -> dict[str, Any]:
    return {"origin": origin, "owners": [person] if person else []}


def _person(item: Mapping[str, Any]) -> str:
    return next(iter(item.get("owners", ())), "")
