"""What may train the policy, and what is left out for which reason."""

from dataclasses import replace

from rlhf_online.rollout.buffer import LabelledAnswer, Rollout, ScoredRollout
from rlhf_online.rollout.usable import groups, in_company, usable_labels, usable_rollouts

GOOD = Rollout(
    rollout_id="x",
    prompt_token_ids=(1, 3),
    token_ids=(5, 2),
    logprobs=(-0.5, -0.25),
    policy_version="policy-000003",
    temperature=0.7,
    finished=True,
)
LIMITS = {"vocabulary": 10, "context": 4}


def reasons(*rollouts: Rollout, score: float = 0.0) -> dict[str, int]:
    kept, left_out = usable_rollouts([ScoredRollout(rollout=item, score=score) for item in rollouts], **LIMITS)
    assert len(kept) + sum(left_out.values()) == len(rollouts)
    return dict(left_out)


def test_each_reason() -> None:
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
    assert usable_labels([up, down, up], **LIMITS) == ([up, down, up], {})
    assert usable_labels([up, up], **LIMITS) == ([], {"one_kind": 2})
    assert usable_labels([up, replace(down, token_ids=())], **LIMITS) == ([], {"empty": 1, "one_kind": 1})
    assert usable_labels([], **LIMITS) == ([], {})


def test_company() -> None:
    items = [ScoredRollout(rollout=replace(GOOD, prompt_token_ids=(prompt,)), score=prompt) for prompt in (1, 2, 1, 3)]
    assert in_company(items) == ([items[0], items[2]], {"alone": 2})
    assert in_company(items[::2]) == (items[::2], {})
    assert groups("abca") == [[0, 3], [1], [2]]
