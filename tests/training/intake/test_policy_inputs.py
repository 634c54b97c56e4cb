"""What is kept of the log for the policy update: how many prompts, and which reference answers."""

import json
from collections.abc import Sequence

from rlhf_online.events import Completion, Erasure
from rlhf_online.models.limits import ModelLimits
from rlhf_online.rollout.buffer import RolloutBuffer
from rlhf_online.training.intake.policy_inputs import PolicyInputs
from tests.support.logged import completion


def _inputs(prompts: int = 3, references: int = 3) -> PolicyInputs:
    return PolicyInputs(
        RolloutBuffer(10, 1),
        limits=ModelLimits(vocabulary=100, context=100),
        eos_ids={2},
        max_prompts=prompts,
        max_reference_answers=references,
    )


def _asked(name: str, prompt: int, *answers: Sequence[int]) -> Completion:
    event = completion(name, prompt=(prompt,), answers=answers or ((5, 2),)).event
    assert isinstance(event, Completion)
    return event


def _erased(name: str) -> Erasure:
    asked = _asked(name, 1)
    return Erasure(conversation_id=asked.conversation_id, person=asked.person, erased_ms=9_000)


def test_the_last_different_prompts_are_kept_those_asked_most_recently_last():
    inputs = _inputs(prompts=3)
    for name, prompt in (("a", 11), ("b", 12), ("c", 13), ("d", 11)):
        inputs.add(_asked(name, prompt), held_out=False)
    assert inputs.prompts == [(12,), (13,), (11,)]
    inputs.add(_asked("e", 14), held_out=True)
    assert inputs.prompts == [(13,), (11,), (14,)]
    assert len(inputs.buffer) == 5, "an answer each"


def test_the_first_answers_are_the_reference_and_none_of_a_held_out_conversation():
    inputs = _inputs(references=3)
    inputs.add(_asked("a", 11, (5, 2), (6, 2)), held_out=False)
    inputs.add(_asked("b", 12), held_out=True)
    inputs.add(_asked("c", 13, (7, 2), (8, 2)), held_out=False)
    inputs.add(_asked("d", 14), held_out=False)
    assert inputs.reference_answers == [((11,), (5, 2)), ((11,), (6, 2)), ((13,), (7, 2))]
    inputs.erase(_erased("a"))
    assert inputs.reference_answers == [((13,), (7, 2))], "each goes with its own conversation"


def test_what_may_not_train_is_counted_and_its_prompt_is_not_kept():
    inputs = _inputs()
    inputs.add(_asked("a", 11, (500, 2)), held_out=False)
    inputs.add(_asked("b", 12, (500, 2), (5, 2)), held_out=False)
    assert (inputs.prompts, inputs.left_out["vocabulary"], len(inputs.buffer)) == ([(12,)], 2, 1)


def test_it_comes_back_from_a_checkpoint():
    inputs, again = _inputs(), _inputs()
    for name, prompt, token in (("a", 11, 5), ("b", 12, 500), ("c", 13, 6)):
        inputs.add(_asked(name, prompt, (token, 2)), held_out=False)
    again.restore(json.loads(json.dumps(inputs.to_json())))
    assert again.prompts == inputs.prompts == [(11,), (13,)]
    assert again.reference_answers == inputs.reference_answers and len(again.reference_answers) == 2
    assert again.left_out == inputs.left_out and again.left_out.total() == 1
    again.add(_asked("d", 11), held_out=False)
    assert again.prompts == [(13,), (11,)]


def test_what_stems_from_an_erased_conversation_is_let_go_of_also_after_a_restart():
    inputs = _inputs()
    for name, prompt in (("a", 11), ("b", 12), ("c", 13)):
        inputs.add(_asked(name, prompt, (prompt, 2)), held_out=False)
    again = _inputs()
    again.restore(json.loads(json.dumps(inputs.to_json())))
    again.buffer.restore(inputs.buffer.to_json())
    for held in (inputs, again):
        held.erase(_erased("b"))
        assert held.prompts == [(11,), (13,)] and len(held.buffer) == 2
        assert held.reference_answers == [((11,), (11, 2)), ((13,), (13, 2))]
        held.erase(_erased("c"))
        assert held.prompts == [(11,)] and held.reference_answers == [((11,), (11, 2))]


def test_a_state_of_an_earlier_release_does_not_say_whose_it_is_and_comes_back():
    inputs, again = _inputs(), _inputs()
    inputs.add(_asked("a", 11), held_out=False)
    values = json.loads(json.dumps(inputs.to_json()))
    values["prompts"] = [item["prompt"] for item in values["prompts"]]
    values["reference_answers"] = [item["pair"] for item in values["reference_answers"]]
    again.restore(values)
    again.erase(_erased("a"))
    assert again.prompts == [(11,)] and again.reference_answers == [((11,), (5, 2))]
