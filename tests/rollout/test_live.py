"""Which logged answers may train the policy."""

from dataclasses import replace

import pytest

from rlhf_online.events import Answer, Completion, Sampling, VersionSpan
from rlhf_online.rollout.live import rollouts_of

EOS = (2,)
ANSWER = Answer(
    index=1,
    text="plum",
    token_ids=(20, 2),
    logprobs=(-0.5, -0.25),
    spans=(
        VersionSpan(policy_version="policy-000004", first_token=0),
        VersionSpan(policy_version="policy-000005", first_token=1),
    ),
    finish_reason="stop",
)
COMPLETION = Completion(
    completion_id="c",
    conversation_id="talk",
    person="p",
    messages=(),
    prompt_token_ids=(1, 5, 3),
    answers=(ANSWER,),
    sampling=Sampling(temperature=0.7),
    started_ms=1,
    finished_ms=2,
)


def test_an_answer_becomes_a_rollout_of_its_oldest_version() -> None:
    (rollout,), left_out = rollouts_of(COMPLETION, EOS)
    assert not left_out
    assert rollout.rollout_id == "c#1"
    assert (rollout.prompt_token_ids, rollout.token_ids, rollout.logprobs) == ((1, 5, 3), (20, 2), (-0.5, -0.25))
    assert (rollout.policy_version, rollout.temperature, rollout.finished) == ("policy-000004", 0.7, True)


def test_an_answer_cut_at_the_token_limit_is_one_that_did_not_finish() -> None:
    cut = replace(ANSWER, token_ids=(20, 21), finish_reason="length")
    rollouts, _ = rollouts_of(replace(COMPLETION, answers=(cut, ANSWER)), EOS)
    assert [rollout.finished for rollout in rollouts] == [False, True]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"finish_reason": "abort"}, "unfinished"),
        ({"finish_reason": "error"}, "unfinished"),
        ({"finish_reason": "stop", "token_ids": (20, 21)}, "unfinished"),  # a stop string
        ({"spans": ()}, "version"),
        ({"spans": (VersionSpan(policy_version="policy-000001", first_token=1),)}, "version"),
        ({"spans": (VersionSpan(policy_version="", first_token=0),)}, "version"),
        ({"logprobs": (-0.5,)}, "logprobs"),
        ({"logprobs": (-0.5, float("nan"))}, "logprobs"),
        ({"token_ids": (), "logprobs": ()}, "empty"),
    ],
)
def test_answers_of_unknown_distribution_or_without_an_end_are_left_out_and_counted(change: dict, reason: str) -> None:
    rollouts, left_out = rollouts_of(replace(COMPLETION, answers=(replace(ANSWER, **change), ANSWER)), EOS)
    assert len(rollouts) == 1 and left_out == {reason: 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sampling": Sampling(full_support=False)}, "support"),
        ({"sampling": Sampling(temperature=0.0)}, "greedy"),
        ({"prompt_token_ids": ()}, "empty"),
    ],
)
def test_whole_completions_are_left_out(change: dict, reason: str) -> None:
    assert rollouts_of(replace(COMPLETION, answers=(ANSWER, ANSWER), **change), EOS) == ([], {reason: 2})
