"""Which answers may train the policy, and what is left out for which reason."""

from dataclasses import replace

import pytest

from rlhf_online.events import Answer, Completion, Sampling, VersionSpan
from rlhf_online.models.limits import ModelLimits
from rlhf_online.rollout.eligibility import (
    drop_singleton_groups,
    drop_stale,
    drop_tied_groups,
    eligible_rollouts,
    usable_labels,
    usable_rollouts,
)
from rlhf_online.rollout.types import LabelledAnswer, Rollout, ScoredRollout, groups

EOS = (2,)
WIDE = ModelLimits(vocabulary=1000, context=1000)
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
    (rollout,), left_out = eligible_rollouts(COMPLETION, EOS, WIDE)
    assert not left_out
    assert rollout.rollout_id == "c#1"
    assert (rollout.prompt_token_ids, rollout.token_ids, rollout.logprobs) == ((1, 5, 3), (20, 2), (-0.5, -0.25))
    assert (rollout.policy_version, rollout.temperature, rollout.finished) == ("policy-000004", 0.7, True)


def test_an_answer_cut_at_the_token_limit_is_one_that_did_not_finish() -> None:
    cut = replace(ANSWER, token_ids=(20, 21), finish_reason="length")
    rollouts, _ = eligible_rollouts(replace(COMPLETION, answers=(cut, ANSWER)), EOS, WIDE)
    assert [rollout.finished for rollout in rollouts] == [False, True]


def test_an_answer_that_ends_with_a_call_of_a_tool_has_finished() -> None:
    called = replace(ANSWER, text="", finish_reason="tool_calls")
    (rollout,), left_out = eligible_rollouts(replace(COMPLETION, answers=(called,)), EOS, WIDE)
    assert rollout.finished and not left_out


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"finish_reason": "abort"}, "unfinished"),
        ({"finish_reason": "error"}, "unfinished"),
        ({"finish_reason": "stop", "token_ids": (20, 21)}, "unfinished"),  # a stop string
        ({"finish_reason": "tool_calls", "token_ids": (20, 21)}, "unfinished"),
        ({"spans": ()}, "version"),
        ({"spans": (VersionSpan(policy_version="policy-000001", first_token=1),)}, "version"),
        ({"spans": (VersionSpan(policy_version="", first_token=0),)}, "version"),
        ({"logprobs": (-0.5,)}, "logprobs"),
        ({"logprobs": (-0.5, float("nan"))}, "logprobs"),
        ({"token_ids": (), "logprobs": ()}, "empty"),
    ],
)
def test_answers_of_unknown_distribution_or_without_an_end_are_left_out_and_counted(change: dict, reason: str) -> None:
    rollouts, left_out = eligible_rollouts(replace(COMPLETION, answers=(replace(ANSWER, **change), ANSWER)), EOS, WIDE)
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
    assert eligible_rollouts(replace(COMPLETION, answers=(ANSWER, ANSWER), **change), EOS, WIDE) == ([], {reason: 2})


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (ModelLimits(vocabulary=21, context=5), ""),
        (ModelLimits(vocabulary=20, context=5), "vocabulary"),
        (ModelLimits(vocabulary=21, context=4), "context"),
        (ModelLimits(vocabulary=21, context=2), "context"),
    ],
)
def test_a_logged_answer_must_fit_the_models_with_its_whole_prompt(limits: ModelLimits, reason: str) -> None:
    rollouts, left_out = eligible_rollouts(COMPLETION, EOS, limits)
    assert left_out == ({reason: 1} if reason else {}) and len(rollouts) == (not reason)


GOOD = Rollout(
    rollout_id="x",
    prompt_token_ids=(1, 3),
    token_ids=(5, 2),
    logprobs=(-0.5, -0.25),
    policy_version="policy-000003",
    temperature=0.7,
    finished=True,
)
LIMITS = ModelLimits(vocabulary=10, context=4)


def reasons(*rollouts: Rollout, score: float = 0.0) -> dict[str, int]:
    kept, left_out = usable_rollouts([ScoredRollout(rollout=item, score=score) for item in rollouts], LIMITS)
    assert len(kept) + sum(left_out.values()) == len(rollouts)
    return dict(left_out)


def test_each_reason_as_an_update_begins() -> None:
    assert reasons(GOOD) == {}
    assert reasons(replace(GOOD, token_ids=(), logprobs=()), replace(GOOD, prompt_token_ids=())) == {"empty": 2}
    unknown = [
        replace(GOOD, token_ids=(5, 10)),
        replace(GOOD, prompt_token_ids=(10,)),
        replace(GOOD, token_ids=(-1, 2)),
    ]
    assert reasons(*unknown) == {"vocabulary": 3}
    assert reasons(replace(GOOD, token_ids=(5, 5, 2), logprobs=(-1.0,) * 3)) == {}, "its prompt is cut to one token"
    assert reasons(replace(GOOD, token_ids=(5, 5, 5, 2), logprobs=(-1.0,) * 4)) == {"context": 1}
    assert reasons(replace(GOOD, logprobs=(-1.0,)), replace(GOOD, logprobs=(-1.0, float("-inf")))) == {"logprobs": 2}
    assert reasons(replace(GOOD, temperature=0.0), replace(GOOD, temperature=float("nan"))) == {"greedy": 2}
    for score in (float("nan"), float("inf")):
        assert reasons(GOOD, GOOD, score=score) == {"score": 2}


def test_labels_of_both_kinds() -> None:
    up = LabelledAnswer(prompt_token_ids=(1, 3), token_ids=(5, 2), desirable=True)
    down = replace(up, desirable=False)
    assert usable_labels([up, down, up], LIMITS) == ([up, down, up], {})
    assert usable_labels([up, up], LIMITS) == ([], {"one_kind": 2})
    assert usable_labels([up, replace(down, token_ids=())], LIMITS) == ([], {"empty": 1, "one_kind": 1})
    assert usable_labels([], LIMITS) == ([], {})


def test_answers_that_are_compared_need_another_one_to_their_prompt() -> None:
    items = [ScoredRollout(rollout=replace(GOOD, prompt_token_ids=(prompt,)), score=prompt) for prompt in (1, 2, 1, 3)]
    assert drop_singleton_groups(items) == ([items[0], items[2]], {"singleton": 2})
    assert drop_singleton_groups(items[::2]) == (items[::2], {})


def test_answers_of_one_worth_are_tied() -> None:
    assert drop_tied_groups([(1,), (2,), (1,), (2,), (3,)], [0.5, 1.0, 0.25, 1.0, 9.0]) == ([[0, 2]], {"tied": 3})


def test_groups_stand_in_the_order_of_their_first_rows() -> None:
    assert groups("abca") == [[0, 3], [1], [2]]


def test_age_is_counted_in_promoted_versions() -> None:
    lineage = ["policy-000000", "policy-000001", "policy-000003", "policy-000004"]  # 2 was rejected
    rollouts = [replace(GOOD, policy_version=f"policy-{number:06d}") for number in range(5)]
    assert drop_stale(rollouts, lineage, 2) == ([rollouts[1], *rollouts[3:]], {"stale": 2})
    assert drop_stale(rollouts, lineage, 0) == ([rollouts[4]], {"stale": 4})
