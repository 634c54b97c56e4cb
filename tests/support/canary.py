"""People before a canary, as the chat service logs them."""

from dataclasses import replace

from rlhf_online.events import AnswerRef, Completion, Envelope, Feedback, Pairwise, Thumb, VersionSpan, now_ms
from tests.support.trainer_world import MAX_TOKENS, PROMPTS, World

CANDIDATE, LIVE = "policy-000001", "policy-000000"


class Audience:
    """Each vote is another person's. The events are logged in `world`."""

    def __init__(self, world: World, candidate: str = CANDIDATE, live: str = LIVE) -> None:
        self.world = world
        self.candidate = candidate
        self.live = live

    def asks(self, version: str, **fields: object) -> Completion:
        """Somebody was answered by that version."""
        world = self.world
        prompt = world.tokenizer.prompt_ids(
            world.completion(PROMPTS[0], []).messages,
        )
        [rollout] = world.engine.sample([prompt], 1, MAX_TOKENS, 1.0)
        made = world.completion(PROMPTS[0], [rollout], finished_ms=now_ms())
        spans = (VersionSpan(policy_version=version, first_token=0),)
        answer = replace(made.answers[0], spans=spans, text=made.answers[0].text or "yes")
        completion = replace(made, answers=(answer,), person=f"person {world.conversations}", **fields)
        world.append(Envelope(event_id=completion.completion_id, event=completion))
        return completion

    def compares(self, number: int, *, better: str, blind: bool = True) -> None:
        """So many people find the answer of the version `better` the better one of two."""
        for _ in range(number):
            shown = f"comparison {self.world.conversations}"
            mine, other = (self.asks(version, comparison_id=shown) for version in (self.candidate, self.live))
            if better == self.live:
                mine, other = other, mine
            self._says(
                Feedback(
                    conversation_id=mine.conversation_id,
                    person=mine.person,
                    kind=Pairwise(chosen=_ref(mine), rejected=_ref(other)),
                    created_ms=now_ms(),
                    comparison_id=shown,
                    could_know=not blind,
                )
            )

    def rates(self, number: int, version: str, *, up: bool) -> None:
        """So many people give a thumb to an answer of that version."""
        for _ in range(number):
            answer = self.asks(version)
            thumb = Thumb(answer=_ref(answer), up=up)
            self._says(
                Feedback(conversation_id=answer.conversation_id, person=answer.person, kind=thumb, created_ms=now_ms())
            )

    def _says(self, feedback: Feedback) -> None:
        event_id = f"vote-{len(self.world.accepted)}"
        self.world.append(Envelope(event_id=event_id, event=feedback))
        self.world.accepted.append(event_id)


def _ref(completion: Completion) -> AnswerRef:
    return AnswerRef(completion_id=completion.completion_id)
