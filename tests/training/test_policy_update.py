"""The policy updater, with every algorithm: step zero (oracle 7), exact micro-batches, undoing, learning, resuming."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_online.models.comparison import logprobs_and_kl
from rlhf_online.models.packing import Packed
from rlhf_online.models.policy import Outputs, Policy
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.rollout.types import LabelledAnswer, Rollout, ScoredRollout
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training import optimiser
from rlhf_online.training.optimiser import NamedAdam
from rlhf_online.training.policy.algorithms import ALGORITHMS
from rlhf_online.training.policy.algorithms.base import KLPenalised, PolicyGradient
from rlhf_online.training.policy.measured import MeasuredAnswers
from rlhf_online.training.policy.micro_batches import MicroBatches, out_of_memory
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.policy_update import PolicyReport, PolicyUpdater

PROMPTS = [(1, 10 + i % 20, 20, 3) if i % 3 else (1, 10 + i % 20, 3) for i in range(48)]
WANTED = 33


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


def _updater(
    base: Path, *, tuning: Any = "full", seed: int = 0, demonstrations: Sequence[Pair] = (), **settings: object
) -> PolicyUpdater:
    policy = Policy.load(base, tuning=tuning)
    values = PolicyTraining.model_validate({"max_step_kl": 50.0} | settings)
    return PolicyUpdater(policy, values, seed, demonstrations)


def _adaptive(algorithm: str) -> dict[str, Any]:
    """With a β that moves, if it pays for its KL."""
    return {"name": algorithm} | ({"kl_target": 1.0} if issubclass(ALGORITHMS[algorithm], KLPenalised) else {})


def _average_of(updater: PolicyUpdater) -> dict[str, torch.Tensor]:
    """Adam's first average: a tenth of the gradient after one step."""
    return {name: tensor for name, tensor in updater.state()[0].items() if name.startswith("adam.exp_avg.")}


def _same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def _rollouts(policy: Policy, seed: int = 1, temperature: float = 1.0, prompts=PROMPTS) -> list[ScoredRollout]:
    """Answers of `policy`; an answer is worth what share of it is the word WANTED."""
    answers = policy.sample(prompts, max_tokens=4, temperature=temperature, seed=seed, eos_ids=(2, 5, 6, 7))
    pairs = list(zip(prompts, answers, strict=True))
    return [
        ScoredRollout(
            rollout=Rollout(
                rollout_id=str(index),
                prompt_token_ids=prompt,
                token_ids=answer,
                logprobs=logprobs,
                policy_version="policy-000000",
                temperature=temperature,
                finished=answer[-1] in (2, 5, 6, 7),
            ),
            score=10 * answer.count(WANTED) / len(answer),
        )
        for index, ((prompt, answer), logprobs) in enumerate(
            zip(pairs, policy.logprobs(pairs, temperature=temperature), strict=True)
        )
    ]


def _labels(rollouts: Sequence[ScoredRollout]) -> list[LabelledAnswer]:
    """What people say who like an answer with WANTED in it."""
    return [
        LabelledAnswer(
            prompt_token_ids=scored.rollout.prompt_token_ids,
            token_ids=scored.rollout.token_ids,
            desirable=scored.score > 0,
        )
        for scored in rollouts
    ]


def _update(updater: PolicyUpdater, rollouts: Sequence[ScoredRollout]) -> PolicyReport:
    """On nothing but thumbs where the algorithm learns from those."""
    return updater.update([], _labels(rollouts)) if updater.algorithm.needs.labels else updater.update(rollouts)


def _rescored(rollouts: list[ScoredRollout], score: float) -> list[ScoredRollout]:
    return [ScoredRollout(rollout=scored.rollout, score=score) for scored in rollouts]


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_at_step_zero_the_ratio_is_one_and_the_kl_zero(base: Path, tuning, temperature: float):
    updater = _updater(base, tuning=tuning, epochs=1, minibatches=1)
    report = updater.update(_rollouts(updater.policy, temperature=temperature))
    assert report.kl == pytest.approx(0, abs=1e-6)
    assert report.behaviour_k3 <= 1e-10
    assert report.stats["clip_fraction"] == 0 and report.stats["ratio"] == pytest.approx(1, abs=1e-6)
    assert report.stats["policy_loss"] == pytest.approx(0, abs=1e-5), "minus the mean of whitened advantages"
    assert not report.undone and 0 < report.step_kl < 1


def test_the_report_by_hand(base: Path):
    updater = _updater(base, algorithm={"missing_eos_penalty": 0.5, "reward_clip": 2.0})
    rollouts = _rollouts(updater.policy)
    report = updater.update(rollouts)
    scores = [scored.score for scored in rollouts]
    unfinished = sum(not scored.rollout.finished for scored in rollouts)
    assert 0 < unfinished < len(rollouts)
    assert report.score == pytest.approx(sum(scores) / 48, abs=1e-5)
    clipped = sum(min(2.0, score) for score in scores) - 0.5 * unfinished
    assert report.reward == pytest.approx(clipped / 48, abs=1e-5), "KL is 0"
    assert report.length == sum(len(scored.rollout.token_ids) for scored in rollouts) / 48
    assert report.rollouts == 48 and report.kl_coef == 0.03


def test_the_kl_is_paid_for(base: Path):
    updater = _updater(base, algorithm={"kl_coef": 0.5}, lr=3e-3)
    updater.update(_rollouts(updater.policy))
    rollouts = _rescored(_rollouts(updater.policy, seed=2), 1.0)
    pairs = [(scored.rollout.prompt_token_ids, scored.rollout.token_ids) for scored in rollouts]
    ours, reference = (updater.policy.logprobs(pairs, reference=which) for which in (False, True))
    exact = [sum(kl) for _, kl in logprobs_and_kl(updater.policy, pairs)]
    report = updater.update(rollouts)
    assert report.kl == pytest.approx(sum(exact) / 48, abs=1e-5) and report.kl > 0.01
    unfinished = sum(not scored.rollout.finished for scored in rollouts) / 48
    k1 = sum(sum(p) - sum(r) for p, r in zip(ours, reference, strict=True)) / 48
    assert report.reward == pytest.approx(1 - unfinished - 0.5 * k1, abs=1e-4), "what its own tokens say is charged for"


@pytest.mark.parametrize(
    "algorithm",
    [
        *ALGORITHMS,
        *(
            {"name": name, "kl_in": "loss", "entropy_coef": 0.1}
            for name, kind in ALGORITHMS.items()
            if issubclass(kind, PolicyGradient)
        ),
    ],
    ids=str,
)
def test_micro_batches_give_the_gradient_of_the_minibatch(base: Path, algorithm: Any):
    once: dict[str, Any] = {"algorithm": algorithm, "epochs": 1, "minibatches": 1, "max_grad_norm": 1e6}
    whole = _updater(base, **once)
    pieces = _updater(base, **once, micro_batch_tokens=40)
    passes: list[int] = []
    forward = pieces.policy.forward

    def counted(batch: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append(len(batch.mask_BA))
        return forward(batch, *args, **kwargs)

    pieces.policy.forward = counted
    rollouts = _rollouts(whole.policy)
    _update(whole, rollouts)
    _update(pieces, rollouts)
    assert max(passes) < 10
    gradients, others = _average_of(whole), _average_of(pieces)
    assert len(gradients) > 10 and any(tensor.abs().max() > 1e-4 for tensor in gradients.values())
    for name, tensor in gradients.items():
        assert torch.allclose(tensor, others[name], atol=1e-7, rtol=1e-5), name


@pytest.mark.parametrize(
    ("algorithm", "tuning"), [*((algorithm, "full") for algorithm in ALGORITHMS), ("ppo", "lora"), ("kto", "lora")]
)
def test_it_learns_what_scores(base: Path, algorithm: str, tuning: str):
    lr, cycles = {"full": (3e-3, 6), "lora": (1e-2, 10)}[tuning]
    free = {"kl_coef": 0.0} if issubclass(ALGORITHMS[algorithm], KLPenalised) else {}
    updater = _updater(base, algorithm={"name": algorithm, **free}, tuning=tuning, lr=lr, epochs=2)

    def mean() -> float:
        return sum(scored.score for scored in _rollouts(updater.policy, seed=9, prompts=PROMPTS * 4)) / 192

    before = mean()
    for cycle in range(cycles):
        report = _update(updater, _rollouts(updater.policy, seed=cycle, prompts=PROMPTS * 4))
        assert not report.undone
    assert mean() > before + 2


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
@pytest.mark.parametrize("kl_in", ["reward", "loss"])
def test_the_penalty_leads_back_to_the_reference(base: Path, algorithm: str, kl_in: str):
    """Where no answer is better than another, that is all there is to learn."""
    settings = {"name": algorithm, "kl_in": kl_in, "kl_coef": 1.0, "missing_eos_penalty": 0.0}
    updater = _updater(base, algorithm=settings, lr=3e-4)
    with torch.no_grad():
        updater.policy.lm.get_parameter("lm_head.weight")[WANTED] += 0.3
    kls = []
    for cycle in range(8):
        rollouts = _rescored(_rollouts(updater.policy, seed=cycle, prompts=PROMPTS * 4), 0.0)
        kls.append(updater.update(rollouts).kl)
    assert kls[0] > 0.5 and kls[-1] < 0.5 * kls[0]


def test_answers_of_an_older_policy_keep_their_own_logprobs(base: Path):
    updater = _updater(base, lr=3e-3, epochs=1, minibatches=1)
    stale = _rollouts(updater.policy)
    updater.update(stale)
    report = updater.update(stale)
    assert report.behaviour_k3 > 1e-5
    [(version, found)] = report.mismatch.items()
    assert version == stale[0].rollout.policy_version and 0 < found.outside < 1
    assert found.k3 == report.behaviour_k3 and found.tokens == sum(len(item.rollout.token_ids) for item in stale)
    assert abs(report.stats["policy_loss"]) > 1e-4, "the ratio is no longer 1"


def test_stale_answers_as_if_fresh_or_decoupled(base: Path):
    fresh = _updater(base, algorithm={"correction": "none"}, lr=3e-4, epochs=1, minibatches=1)
    stale = _rollouts(fresh.policy)
    fresh.update(stale)
    start = fresh.state()
    report = fresh.update(stale)
    assert report.behaviour_k3 > 1e-6 and report.stats["ratio"] == pytest.approx(1, abs=1e-6)
    cases: list[tuple[dict[str, Any], int, int]] = [
        ({}, 0, 0),
        ({"max_weight": 1e-3}, 1, 0),
        ({"reject_above": 1e-3}, 0, 1),
        ({"weight_per": "sequence", "max_weight": 1e-3}, 1, 0),
    ]
    for limits, truncated, rejected in cases:
        settings = {"correction": "decoupled", **limits}
        decoupled = _updater(base, algorithm=settings, lr=3e-4, epochs=1, minibatches=1)
        decoupled.load_state(*start)
        stats = decoupled.update(stale).stats
        assert (stats["truncated_fraction"], stats["rejected_fraction"]) == pytest.approx((truncated, rejected))
        if not limits:
            assert stats["ratio"] == pytest.approx(1, abs=1e-6) and abs(stats["weight"] - 1) > 1e-4


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_step_too_far_is_undone(base: Path, tuning: str, algorithm: str):
    updater = _updater(base, tuning=tuning, algorithm=_adaptive(algorithm), lr=0.05, max_step_kl=0.05)
    before = updater.state()
    report = _update(updater, _rollouts(updater.policy, prompts=PROMPTS[:12] * 4))
    assert report.undone and "nats an answer" in report.reason and report.step_kl > 0.05
    after = updater.state()
    assert _same(before[0], after[0]) and before[1] == after[1]


@pytest.mark.parametrize(
    ("step_kl", "undone"), [(float("nan"), True), (float("inf"), True), (1.01, True), (1.0, False), (0.0, False)]
)
def test_only_a_step_known_to_be_small_is_kept(
    base: Path, monkeypatch: pytest.MonkeyPatch, step_kl: float, undone: bool
):
    """A step of NaN nats is none of at most 1."""
    monkeypatch.setattr(MicroBatches, "step_kl", lambda self, answers: step_kl)
    updater = _updater(base, max_step_kl=1.0, epochs=1)
    before = updater.state()[0]
    report = updater.update(_rollouts(updater.policy, prompts=PROMPTS[:12] * 4))
    assert (report.undone, updater.updates) == (undone, 0 if undone else 1)
    assert _same(before, updater.state()[0]) == undone


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nan_weights_are_noticed(base: Path, algorithm: str):
    updater = _updater(base, algorithm=algorithm)
    rollouts = _rollouts(updater.policy, prompts=PROMPTS[:12] * 4)
    with torch.no_grad():
        updater.policy.lm.get_parameter("lm_head.weight")[0, 0] = float("nan")
    report = _update(updater, rollouts)
    assert report.undone and "not finite" in report.reason and updater.updates == 0


def test_what_cannot_be_learned_from_is_left_out_and_counted(base: Path):
    rollouts = _rollouts(_updater(base).policy)
    one = rollouts[0].rollout
    bad = [
        ScoredRollout(rollout=one, score=float("nan")),
        ScoredRollout(rollout=one, score=float("inf")),
        *(
            ScoredRollout(rollout=replace(one, **change), score=0.0)
            for change in (
                {"token_ids": (), "logprobs": ()},
                {"token_ids": (78, 2), "logprobs": (-1.0, -1.0)},
                {"token_ids": (5,) * 128, "logprobs": (-1.0,) * 128},
                {"logprobs": (float("nan"),) * len(one.token_ids)},
                {"logprobs": one.logprobs[:-1]},
                {"temperature": 0.0},
            )
        ),
    ]
    reports, states = [], []
    for answers in (rollouts, bad + rollouts, bad):
        updater = _updater(base, epochs=1)
        reports.append(updater.update(answers))
        states.append(updater.state())
    clean, mixed, nothing = reports
    counts = {"score": 2, "empty": 1, "vocabulary": 1, "context": 1, "logprobs": 2, "greedy": 1}
    assert mixed.left_out == counts and replace(mixed, left_out={}) == clean
    assert _same(states[0][0], states[1][0])
    assert nothing.rollouts == 0 and nothing.left_out == counts and "no answer" in nothing.reason and not nothing.undone
    assert states[2][1]["updates"] == 0 and not any(name.startswith("adam") for name in states[2][0])


def test_groups_need_company_pairs_a_difference_and_labels_both_kinds(base: Path):
    policy = _updater(base).policy
    rollouts = _rollouts(policy, prompts=PROMPTS[:1] * 4 + PROMPTS[1:2])
    for algorithm in ("grpo", "dr-grpo", "dapo", "gspo", "rloo", "best-of-n"):
        report = _updater(base, algorithm=algorithm).update(rollouts)
        assert report.left_out == {"singleton": 1} and report.rollouts == 4
    for algorithm in ("online-dpo", "dapo"):
        updater = _updater(base, algorithm={"name": algorithm, "missing_eos_penalty": 0.0})
        report = updater.update(_rescored(rollouts, 1.0)[:4])
        assert report.rollouts == 0 and report.left_out == {"tied": 4} and updater.updates == 0
    labels = [replace(label, desirable=True) for label in _labels(rollouts)]
    report = _updater(base, algorithm="kto").update(rollouts, labels)
    assert report.left_out == {"one_kind": 5} and report.rollouts == 0
    assert _updater(base, algorithm="kto").update(rollouts).rollouts == 0


def test_what_torch_raises_where_a_cpu_has_no_memory_is_known(base: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 46)
    assert out_of_memory(refused.value) and not out_of_memory(RuntimeError("shapes do not match"))
    updater = _updater(base, epochs=1)
    rollouts = _rollouts(updater.policy)
    forward, failures = updater.policy.forward, []

    def cramped(batch: Packed, *args: Any, **kwargs: Any) -> Outputs:
        if len(batch.mask_BA) > 8:
            failures.append(batch)
            torch.empty(1 << 46)
        return forward(batch, *args, **kwargs)

    monkeypatch.setattr(updater.policy, "forward", cramped)
    assert not updater.update(rollouts).undone and failures


def test_an_adaptive_coefficient_moves_with_the_kl(base: Path):
    updater = _updater(base, algorithm={"kl_coef": 0.1, "kl_target": 5.0})
    assert updater.update(_rollouts(updater.policy)).kl_coef == 0.1
    report = updater.update(_rollouts(updater.policy, seed=2))
    assert report.kl_coef == pytest.approx(0.1 * (1 - 0.2 * 48 / 10_000))


def test_a_stage_begins_with_its_own_coefficient_and_a_fixed_one_is_what_the_settings_say(base: Path):
    ppo, rloo = {"name": "ppo", "kl_coef": 0.1, "kl_target": 5.0}, {"name": "rloo", "kl_coef": 0.2, "kl_target": 5.0}
    schedule = [{"algorithm": ppo, "updates": 2}, {"algorithm": rloo, "updates": 1}, {"algorithm": "grpo"}]
    updater = _updater(base, schedule=schedule, epochs=1)
    prompts = PROMPTS[:12] * 4
    coefs = [updater.update(_rollouts(updater.policy, seed=cycle, prompts=prompts)).kl_coef for cycle in range(4)]
    assert coefs == [0.1, pytest.approx(0.1 * (1 - 0.2 * 48 / 10_000)), 0.2, 0.03]


def test_what_46f9894_kept_is_taken_up(base: Path):
    """Its updater wrote the controller's coefficient whatever the algorithm."""
    updater = _updater(base, algorithm={"name": "reinforce", "kl_coef": 0.1, "kl_target": 5.0})
    tensors, _ = updater.state()
    updater.load_state(tensors, {"updates": 7, "kl_coef": 0.08, "value_ready": True, "baseline": [0.9, 1.9]})
    assert updater.updates == 7 and updater.value_ready
    assert updater.algorithm_state.baseline.mean == pytest.approx(0.9 / 1.9)
    assert updater.update(_rollouts(updater.policy)).kl_coef == 0.08


def test_the_value_head_begins_as_the_mean_reward_head_once(base: Path):
    updater = _updater(base)
    reward = RewardModel.load(base, tuning="full", heads=Heads(members=4))
    pairs = [(scored.rollout.prompt_token_ids, scored.rollout.token_ids) for scored in _rollouts(updater.policy)]
    reward.normalise(pairs)
    updater.init_value(*reward.linear(torch.ones(1)))
    values_BA = updater.policy.forward(updater.policy.collate([(pairs[0][0], (*pairs[0][1], 2))])).values_BA
    # The trunks are equal, so the value of a whole answer's state is its score.
    assert values_BA[0, -1].item() == pytest.approx(reward.scores(pairs[:1]).mean().item(), abs=1e-4)
    other = RewardModel.load(base, tuning="full", heads=Heads(members=4), seed=9)
    weight = updater.policy.value_head.weight.clone()
    updater.init_value(*other.linear(torch.ones(1)))
    assert torch.equal(weight, updater.policy.value_head.weight)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_restored_updater_goes_on_as_if_nothing_had_happened(base: Path, tuning: str, algorithm: str):
    prompts = PROMPTS[:12] * 4
    updater = _updater(base, tuning=tuning, algorithm=_adaptive(algorithm), ema=0.5)
    updater.init_value(*RewardModel.load(base, tuning="full", heads=Heads(members=4)).linear(torch.ones(1)))
    _update(updater, _rollouts(updater.policy, prompts=prompts))
    tensors, values = updater.state()
    torch.manual_seed(5)
    again = _updater(base, tuning=tuning, algorithm=_adaptive(algorithm), ema=0.5)
    again.load_state(tensors, json.loads(json.dumps(values)))
    rollouts = _rollouts(updater.policy, seed=2, prompts=prompts)
    assert _update(updater, rollouts) == _update(again, rollouts)
    assert updater.updates == 2
    one, two = updater.state(), again.state()
    assert one[1] == two[1] and _same(one[0], two[0])


class SmallMemory:
    """A policy that runs out of memory with more sequences than so many in a pass."""

    def __init__(self, policy: Policy, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.failures = 0
        collate = policy.collate

        def guarded(pairs: Sequence[Pair]) -> Packed:
            if len(pairs) > most:
                self.failures += 1
                raise torch.OutOfMemoryError("a fake")
            return collate(pairs)

        monkeypatch.setattr(policy, "collate", guarded)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_out_of_memory_it_goes_on_with_smaller_micro_batches(
    base: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch
):
    demonstrations = [((1, 10, 3), (40, 41, 2))] * 12
    settings: dict[str, Any] = {"algorithm": algorithm, "epochs": 1, "minibatches": 1, "ptx_coef": 0.5}
    plenty = _updater(base, demonstrations=demonstrations, **settings)
    little = _updater(base, demonstrations=demonstrations, **settings)
    rollouts = _rollouts(plenty.policy, prompts=PROMPTS[:12] * 4)
    memory = SmallMemory(little.policy, monkeypatch, 5)
    expected, found = _update(plenty, rollouts), _update(little, rollouts)
    assert memory.failures > 3
    for name in ("policy_loss", "ptx_loss"):
        assert found.stats[name] == pytest.approx(expected.stats[name], abs=1e-5)
    gradients, others = _average_of(plenty), _average_of(little)
    for name, tensor in gradients.items():
        assert torch.allclose(tensor, others[name], atol=1e-7, rtol=1e-5), name
    failures = memory.failures
    assert not _update(little, rollouts).undone
    assert memory.failures == failures, "what fits is remembered"


def test_an_answer_too_large_for_memory_undoes_the_update(base: Path, monkeypatch: pytest.MonkeyPatch):
    updater = _updater(base, epochs=1)
    rollouts = _rollouts(updater.policy)
    updater.update(rollouts)
    before = updater.state()
    SmallMemory(updater.policy, monkeypatch, 0)
    report = updater.update(rollouts)
    assert report.undone and "out of memory" in report.reason
    assert _same(before[0], updater.state()[0]) and before[1] == updater.state()[1]


def test_without_room_for_a_copy_the_update_is_not_begun(base: Path, monkeypatch: pytest.MonkeyPatch):
    updater = _updater(base, epochs=1)
    rollouts, before = _rollouts(updater.policy), updater.state()

    def none(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("a fake")

    monkeypatch.setattr(optimiser, "_copies", none)
    report = updater.update(rollouts)
    assert report.undone and report.reason.startswith("no memory for a copy of what an update changes, 0.0 GiB")
    assert _same(before[0], updater.state()[0]) and before[1] == updater.state()[1]


def test_where_moments_are_kept_changes_no_bit_of_what_is_learned(base: Path):
    for tuning in ("full", "lora"):
        there, away = (
            PolicyUpdater(Policy.load(base, tuning=tuning), PolicyTraining(max_step_kl=50.0), 0, moments_on_cpu=on_cpu)
            for on_cpu in (False, True)
        )
        rollouts = _rollouts(there.policy, prompts=PROMPTS[:8])
        for _ in range(2):
            assert _update(there, rollouts) == _update(away, rollouts)
        assert _same(there.state()[0], away.state()[0]) and there.updates == 2
        there.load_state(*away.state())
        assert _update(there, rollouts) == _update(away, rollouts)


def test_the_average_is_what_serves_while_the_policy_learns_on(base: Path):
    updater, plain = _updater(base, ema=0.75), _updater(base)
    start = learned = served = updater.policy.state()
    for cycle in range(2):
        rollouts = _rollouts(plain.policy, seed=cycle)
        plain.update(rollouts)
        updater.update(rollouts)
        learned = updater.policy.state()
        assert _same(learned, plain.policy.state()), "what learns is not the average"
        with updater.published():
            served = updater.policy.state()
        assert _same(learned, updater.policy.state())
        for name, tensor in served.items():
            if name.startswith("policy."):
                start = start | {name: 0.75 * start[name] + 0.25 * learned[name]}
                assert torch.allclose(tensor, start[name], atol=1e-6)
    assert not _same(served, learned)
    with plain.published():
        assert _same(plain.policy.state(), learned)


def test_the_average_comes_back_from_a_checkpoint(base: Path):
    updater, again = _updater(base, ema=0.75), _updater(base, ema=0.75)
    updater.update(_rollouts(updater.policy))
    again.load_state(*updater.state())
    with updater.published(), again.published():
        assert _same(updater.policy.state(), again.policy.state())
    assert any(name.startswith("average.") for name in updater.state()[0])


def test_demonstrations_are_mixed_in(base: Path):
    """Nothing scores, and what people demonstrated becomes likely all the same."""
    shown: Pair = ((1, 10, 20, 3), (40, 41, 2))
    likely = {}
    for coef in (0.0, 1.0):
        updater = _updater(base, ptx_coef=coef, demonstrations=[shown], lr=1e-3)
        for cycle in range(4):
            report = updater.update(_rescored(_rollouts(updater.policy, seed=cycle), 0.0))
            assert ("ptx_loss" in report.stats) == (coef > 0)
        likely[coef] = sum(updater.policy.logprobs([shown])[0])
    assert likely[1.0] > likely[0.0] + 3


def test_gradients_of_one_step_are_not_those_of_the_next(base: Path, monkeypatch: pytest.MonkeyPatch):
    """On the same answers, and with weights that stay, they are all of one length."""
    norms: list[float] = []
    clip = NamedAdam.clip
    monkeypatch.setattr(NamedAdam, "clip", lambda self, most: norms.append(clip(self, most)) or norms[-1])
    updater = _updater(base, epochs=3, minibatches=1, lr=1e-12, algorithm={"name": "rloo"})
    updater.update(_rollouts(updater.policy))
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-3)


def test_how_far_an_update_has_come_is_told_as_it_learns(base: Path):
    updater = _updater(base, epochs=2, minibatches=3)
    told: list[tuple[int, int]] = []
    updater.update(_rollouts(updater.policy), on_step=lambda done, of: told.append((done, of)))
    assert told == [(done, 6) for done in range(7)]
    told.clear()
    updater.update(_rollouts(updater.policy)[:2], on_step=lambda done, of: told.append((done, of)))
    assert told == [(done, 4) for done in range(5)], "a minibatch has an answer at least"


@pytest.mark.parametrize("shown", [1, 5, 40])
def test_each_step_mixes_in_as_many_demonstrations_as_it_has_answers(
    base: Path, monkeypatch: pytest.MonkeyPatch, shown: int
):
    """None twice while there are enough."""
    updater = _updater(base, ptx_coef=0.5, demonstrations=[((1, 10, 3), (30 + i, 2)) for i in range(shown)], epochs=1)
    rollouts = _rollouts(updater.policy)
    steps: list[tuple[float, list[int]]] = []
    backward = MicroBatches.backward

    def recorded(self: Any, objective: Any, examples: Any, weight: float = 1.0) -> dict[str, float]:
        steps.append((weight, [row for example in examples for row in example]))
        return backward(self, objective, examples, weight)

    monkeypatch.setattr(MicroBatches, "backward", recorded)
    updater.update(rollouts)
    answers, mixed = (
        [rows for weight, rows in steps if weight == 1.0],
        [rows for weight, rows in steps if weight == 0.5],
    )
    assert [len(rows) for rows in mixed] == [len(rows) for rows in answers] == [12, 12, 12, 12]
    for rows in mixed:
        assert set(rows) <= set(range(shown)) and len(set(rows)) == min(shown, 12)


def test_an_entropy_bonus_keeps_answers_diverse(base: Path):
    entropy = {}
    for coef in (0.001, 1.0):
        updater = _updater(base, algorithm={"entropy_coef": coef, "kl_coef": 0.0}, lr=1e-3)
        for cycle in range(6):
            entropy[coef] = updater.update(_rollouts(updater.policy, seed=cycle)).stats["entropy"]
    assert entropy[1.0] > entropy[0.001] + 0.1


@pytest.mark.parametrize("whiten", ["off", "scale", "shift"])
def test_rewards_may_be_whitened(base: Path, whiten: str):
    """By hand, at ratio 1: REINFORCE's loss is minus the rewards of whole answers, a token; and with values of 0 PPO's
    value loss half the squared returns of whitened rewards of tokens."""
    settings = {"kl_coef": 0.0, "missing_eos_penalty": 0.0, "reward_clip": 99.0, "whiten_rewards": whiten}
    once: dict[str, Any] = {"epochs": 1, "minibatches": 1}

    def whitened(rewards: list[float]) -> list[float]:
        mean, deviation = statistics.fmean(rewards), statistics.pstdev(rewards)
        kept = mean if whiten == "scale" else 0.0
        return rewards if whiten == "off" else [(reward - mean) / deviation + kept for reward in rewards]

    updater = _updater(base, algorithm={"name": "reinforce", **settings}, **once)
    rollouts = _rollouts(updater.policy)
    sizes = [len(scored.rollout.token_ids) for scored in rollouts]
    rewards = whitened([scored.score for scored in rollouts])
    expected = -sum(size * reward for size, reward in zip(sizes, rewards, strict=True)) / sum(sizes)
    assert updater.update(rollouts).stats["policy_loss"] == pytest.approx(expected, abs=1e-4)

    tokens = [[0.0] * (size - 1) + [scored.score] for size, scored in zip(sizes, rollouts, strict=True)]
    flat = iter(whitened([reward for answer in tokens for reward in answer]))
    squares = []
    for answer in [[next(flat) for _ in answer] for answer in tokens]:
        value = 0.0
        for reward in reversed(answer):
            value = reward + 0.95 * value
            squares.append(value**2)
    stats = _updater(base, algorithm={"value_clip": 99.0, **settings}, **once).update(rollouts).stats
    assert stats["value_loss"] == pytest.approx(0.5 * statistics.fmean(squares), rel=1e-4)


def test_the_algorithm_follows_from_the_updates_so_far(base: Path):
    """Llama 2's schedule: rounds of rejection sampling, then PPO."""
    schedule = [{"algorithm": "best-of-n", "updates": 2, "lr": 1e-4}, {"algorithm": "ppo"}]
    updater = _updater(base, schedule=schedule, lr=1e-3, max_step_kl=1.0, epochs=1)
    reward = RewardModel.load(base, tuning="full", heads=Heads(members=4))
    prompts = PROMPTS[:12] * 4
    seen = []
    for cycle in range(4):
        updater.init_value(*reward.linear(torch.ones(1)))
        assert updater.value_ready == (cycle > 1), "no value head before an algorithm needs one"
        seen.append(updater.update(_rollouts(updater.policy, seed=cycle, prompts=prompts)).algorithm)
    assert seen == ["best-of-n", "best-of-n", "ppo", "ppo"]
    ended = _updater(base, schedule=[{"algorithm": "rloo", "updates": 1}])
    assert [ended.update(_rollouts(ended.policy, prompts=prompts)).algorithm for _ in range(2)] == ["rloo", "rloo"]


def test_the_learning_rate_is_the_stages_and_falls_to_nothing(base: Path):
    def moved(**settings: Any) -> list[float]:
        updater = _updater(base, epochs=1, minibatches=1, lr=1e-3, **settings)
        sizes = []
        for cycle in range(3):
            before = updater.policy.state()["policy.lm_head.weight"]
            rollouts = _rollouts(updater.policy, seed=cycle, prompts=PROMPTS[:12] * 4)
            updater.update(rollouts)
            sizes.append((updater.policy.state()["policy.lm_head.weight"] - before).abs().max().item())
        return sizes

    plain = moved(algorithm="grpo")
    falling = moved(algorithm="grpo", lr_decay_updates=2)
    assert falling[0] == plain[0] and 0.4 * plain[1] < falling[1] < 0.6 * plain[1] and falling[2] == 0
    staged = moved(schedule=[{"algorithm": "grpo", "lr": 1e-4}])
    assert staged[0] == pytest.approx(plain[0] / 10, rel=1e-3)


CHANGED: dict[str, tuple[Any, dict[str, Any]]] = {
    "algorithm": ("rloo", {}),
    "schedule": ([{"algorithm": "grpo"}], {}),
    "lr": (1e-4, {}),
    "lr_decay_updates": (2, {}),
    "epochs": (1, {}),
    "minibatches": (1, {}),
    "ptx_coef": (1.0, {}),
    "max_grad_norm": (0.01, {}),
    "max_step_kl": (1e-9, {}),
}
"""Another value of each setting, and the others that it needs to count."""
ELSEWHERE = {
    "ema": "above",
    "micro_batch_tokens": "above: it changes nothing",
    **dict.fromkeys(("lora_rank", "lora_layers"), "models"),
    "demonstrations": "loop",
}
OF_ALGORITHMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "kl_coef": (1.0, {}),
    "kl_in": ("loss", {"kl_coef": 1.0}),
    "kl_target": (0.01, {"kl_coef": 0.5}),
    "kl_horizon": (100.0, {"kl_target": 0.01, "kl_coef": 0.5}),
    "reward_clip": (0.1, {}),
    "missing_eos_penalty": (5.0, {}),
    "whiten_rewards": ("scale", {}),
    "clip": (0.9, {}),
    "clip_high": (1.0, {}),
    "dual_clip": (1.01, {}),
    "correction": ("none", {}),
    "kl_max_weight": (0.5, {"kl_in": "loss"}),
    "weight_per": ("sequence", {"correction": "decoupled"}),
    "max_weight": (0.5, {"correction": "decoupled"}),
    "reject_above": (1.01, {"correction": "decoupled"}),
    "entropy_coef": (0.1, {}),
    "beta": (1.0, {}),
    "loss": ("ipo", {}),
    "gamma": (0.9, {}),
    "gae_lambda": (0.5, {}),
    "value_lr": (1e-4, {}),
    "value_clip": (0.001, {}),
    "value_coef": (0.1, {}),
    "std": (False, {}),
    "max_tokens": (2, {"max_grad_norm": 1e9, "clip": 9.0}),
}
"""The same for what is an algorithm's."""
EACH = [(name, setting) for name, kind in ALGORITHMS.items() for setting in kind.model_fields if setting != "name"]


def test_every_setting_of_the_policys_training_is_tried() -> None:
    assert CHANGED.keys() | ELSEWHERE.keys() == PolicyTraining.model_fields.keys()
    assert OF_ALGORITHMS.keys() == {setting for _, setting in EACH}


@pytest.fixture(scope="module")
def stale(base: Path) -> list[ScoredRollout]:
    """Some of which differ in score, and each in whether it ended by itself."""
    rollouts = _rollouts(Policy.load(base, tuning="full"), prompts=PROMPTS[:6] * 4)
    return [replace(scored, score=scored.score + row * 7 % 5) for row, scored in enumerate(rollouts)]


def _learned(base: Path, stale: list[ScoredRollout], **settings: Any) -> dict[str, torch.Tensor]:
    """After two updates on the same answers, which are a version old in the second."""
    chosen: dict[str, Any] = {"lr": 3e-3} | settings
    updater = _updater(base, demonstrations=[((1, 10, 3), (40, 41, 2))], **chosen)
    for _ in range(2):
        _update(updater, stale)
    return updater.policy.state()


@pytest.mark.parametrize("name", CHANGED)
def test_a_setting_changes_what_is_learned(base: Path, stale: list[ScoredRollout], name: str) -> None:
    value, others = CHANGED[name]
    assert not _same(_learned(base, stale, **others), _learned(base, stale, **others, **{name: value}))


@pytest.mark.parametrize(("name", "setting"), EACH)
def test_an_algorithms_setting_changes_what_is_learned(
    base: Path, stale: list[ScoredRollout], name: str, setting: str
) -> None:
    value, others = OF_ALGORITHMS[setting]
    if (name, setting) == ("grpo", "whiten_rewards"):
        others = {"std": False}
    outer = {key: other for key, other in others.items() if key in PolicyTraining.model_fields}
    table = {"name": name} | {key: other for key, other in others.items() if key not in outer}
    plain, changed = (_learned(base, stale, **outer, algorithm=chosen) for chosen in (table, table | {setting: value}))
    assert not _same(plain, changed)


class RecordingMicroBatches(MicroBatches):
    """`seen` are the rows of answers that went through the model."""

    def __init__(self, policy: Policy, tokens: int) -> None:
        super().__init__(policy, tokens)
        self.seen: list[int] = []

    def forward(
        self, answers: MeasuredAnswers, rows: Sequence[int], *, entropies: bool = False
    ) -> tuple[Packed, Outputs]:
        self.seen.extend(rows)
        return super().forward(answers, rows, entropies=entropies)


@pytest.mark.parametrize(("count", "chosen"), [(5, 5), (40, 16), (64, 16), (256, 32)])
def test_the_step_kl_is_measured_on_answers_to_many_prompts(base: Path, count: int, chosen: int):
    """Four answers to a prompt stand together; those that are looked at are spread evenly over all of them."""
    passes = RecordingMicroBatches(Policy.load(base, tuning="full"), 2048)
    pairs = [((1, 10 + row // 4 % 20, 3), (30 + row % 40, 2)) for row in range(count)]
    answers = passes.measure(pairs, torch.ones(count))
    passes.seen.clear()
    assert passes.step_kl(answers) == pytest.approx(0, abs=1e-6)
    assert len(passes.seen) == len(set(passes.seen)) == chosen
    gaps = {later - earlier for earlier, later in pairwise([*sorted(passes.seen), count])}
    assert max(gaps) - min(gaps) <= 1
