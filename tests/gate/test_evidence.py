"""What is compared: whole answers of the live version, and the candidate's to the same prompts."""

from typing import Any

from rlhf_online.gate.evidence import baseline, gather
from rlhf_online.rollout.types import Rollout, ScoredRollout


def scored(
    prompt: int,
    score: float,
    *,
    version: str = "policy-000001",
    temperature: float = 1.0,
    tokens: tuple[int, ...] = (7, 8, 9, 2),
    finished: bool = True,
) -> ScoredRollout:
    rollout = Rollout(
        rollout_id="r",
        prompt_token_ids=(prompt, 3),
        token_ids=tokens,
        logprobs=(-1.0,) * len(tokens),
        policy_version=version,
        temperature=temperature,
        finished=finished,
    )
    return ScoredRollout(rollout=rollout, score=score)


def test_the_baseline_is_the_live_versions_own_answers_one_a_prompt_first() -> None:
    rollouts = [
        scored(1, 0.1),
        scored(1, 0.2),
        scored(2, 0.3, version="policy-000000"),
        scored(3, 0.4, temperature=0.7),
        scored(4, 0.5),
    ]
    assert [s.score for s in baseline(rollouts, "policy-000001", 1.0, 2, 4)] == [0.1, 0.5]
    assert [s.score for s in baseline(rollouts, "policy-000001", 1.0, 9, 4)] == [0.1, 0.5, 0.2]


def test_without_an_answer_of_the_live_version_nothing_is_asked() -> None:
    def never(*_: object) -> Any:
        raise AssertionError("asked")

    found = gather([], max_tokens=4, sample=never, score=never, kl_of=never)
    assert found.score_pairs() == [] and found.kl == 0.0


def test_the_candidate_answers_the_same_prompts() -> None:
    asked: list = []

    def sample(prompts: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        asked.extend(prompts)
        return [(prompt[0], 2) for prompt in prompts]

    found = gather(
        [scored(10, 0.0), scored(20, 15.0)],
        max_tokens=4,
        sample=sample,
        score=lambda pairs: [float(answer[0]) for _, answer in pairs],
        kl_of=lambda pairs: float(len(pairs)),
    )
    assert asked == [(10, 3), (20, 3)]
    assert found.score_pairs() == [(10.0, 0.0), (20.0, 15.0)]
    assert (found.kl, found.candidate.lengths, found.live.lengths) == (2.0, [2, 2], [4, 4])


def test_longer_answers_of_the_live_version_are_cut_to_the_candidates_limit_and_scored_again() -> None:
    asked: list[list] = []

    def score(pairs: list) -> list[float]:
        asked.append(pairs)
        return [1.0, 1.0, 3.0]

    # At their full length the live answers score 9 and 0: a loss and a win, at half their length.
    found = gather(
        [scored(10, 9.0), scored(20, 0.0, tokens=(7, 2))],
        max_tokens=2,
        sample=lambda prompts: [(5, 2) for _ in prompts],
        score=score,
        kl_of=lambda pairs: 0.0,
    )
    assert asked == [[((10, 3), (5, 2)), ((20, 3), (5, 2)), ((10, 3), (7, 8))]]
    assert found.score_pairs() == [(1.0, 3.0), (1.0, 0.0)]
    assert found.live.lengths == [2, 2]


def test_an_answer_cut_before_the_candidates_limit_is_no_baseline() -> None:
    short = scored(1, 0.1, finished=False)
    assert baseline([short], "policy-000001", 1.0, 1, 5) == []
    assert baseline([short], "policy-000001", 1.0, 1, 4) == [short]
    ended = scored(1, 0.1)
    assert baseline([ended], "policy-000001", 1.0, 1, 5) == [ended]


def test_without_a_baseline_the_candidate_is_not_asked() -> None:
    asked: list = []

    def sample(prompts: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        asked.append(prompts)
        return []

    found = gather([], max_tokens=4, sample=sample, score=lambda pairs: [], kl_of=lambda pairs: 1.0)
    assert (asked, found.score_pairs(), found.kl) == ([], [], 0.0)
