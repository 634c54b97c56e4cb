"""A candidate before the gate: whether it could be judged, its evidence, gathered with what the trainer holds, and its
verdict, which is kept for commit 2."""

from collections.abc import Sequence

from rlhf_online.gate.check import Evidence
from rlhf_online.gate.evidence import Witnesses, baseline, gather
from rlhf_online.gate.readiness import CHANCE, reward_model_blocks
from rlhf_online.gate.verdict import judge
from rlhf_online.rewards.rules import reading
from rlhf_online.rewards.rules.ruleset import parse
from rlhf_online.rewards.sources import Pair
from rlhf_online.rollout.types import ScoredRollout
from rlhf_online.training.experience import TEMPERATURE
from rlhf_online.training.gate_questions import questioned
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.progress import JudgedVersion, Progress
from rlhf_online.versions.manifest import Kind
from rlhf_online.versions.registry import Registry

PROBES = 8

Tokens = tuple[int, ...]


def learning_blocked(parts: TrainerParts, progress: Progress) -> str:
    """Why the policy may not learn yet, or could not be judged then; "" if it may."""
    blocked = reward_model_blocks(progress.figures, parts.settings.reward.policy_accuracy, "reward.policy_accuracy")
    if blocked or not parts.settings.gate.held_back.required:
        return blocked
    asks = "gate.held_back.required"
    return reward_model_blocks(progress.held_back, CHANCE, asks, which="held-back reward model")


def judge_candidate(
    parts: TrainerParts, progress: Progress, scored: Sequence[ScoredRollout], kind: Kind = "policy"
) -> JudgedVersion:
    """The policy in memory against the version that serves, whose answers are among `scored`: its verdict, its name,
    and what its manifest will say."""
    settings = parts.settings
    evidence = gather_evidence(parts, progress, scored)
    verdict = judge(questioned(parts, progress, evidence, _seed(parts, progress)), settings.gate)
    return JudgedVersion(
        version=parts.retrier.call("naming a version", lambda: parts.registry.reserve(kind)),
        tuning=settings.tuning,
        parent=progress.policy_version,
        reward_version=progress.reward_version,
        kl=verdict.figures["kl"],
        position=dict(progress.position),
        probe=parts.learners.probe(
            probe_prompts(parts.registry, parts.intake.policy_inputs.prompts, sealed=bool(settings.keystore.url)),
            max_tokens=settings.rollout.max_tokens,
            seed=_seed(parts, progress),
        ),
        passed=verdict.passed,
        reasons=verdict.reasons,
        figures=verdict.figures,
        reference=progress.reference,
        weights=dict(progress.weights),
        rules_version=parse(progress.rules).version,
        report=verdict.report,
    )


def probe_prompts(registry: Registry, prompts: Sequence[Tokens], *, sealed: bool) -> Sequence[Tokens]:
    """What a version is probed on: what people asked last. A manifest never changes, so where their words are `sealed`
    it is the beginnings of the first version's own probe, which nobody asked, if it has one."""
    first = registry.manifest(registry.versions("policy")[0]).probe if sealed else ()
    return [tuple(item.token_ids[: len(item.token_ids) // 2 or 1]) for item in first[:PROBES]] or prompts[-PROBES:]


def gather_evidence(parts: TrainerParts, progress: Progress, scored: Sequence[ScoredRollout]) -> Evidence:
    """The same weights, answers and cycle give the same evidence. Raises Stopped while a service is away."""
    settings, learners, apart = parts.settings, parts.learners, parts.held_back
    seed, limit, rules = _seed(parts, progress), settings.rollout.max_tokens, parse(progress.rules)

    def by_rules(pairs: Sequence[Pair]) -> list[float]:
        return reading.added(rules, progress.weights, learners.tokenizer, pairs)

    return gather(
        baseline(scored, progress.policy_version, TEMPERATURE, settings.gate.samples, limit),
        Witnesses(
            sample=lambda prompts: learners.sample(prompts, max_tokens=limit, temperature=TEMPERATURE, seed=seed),
            score=lambda pairs: parts.experience.score(
                pairs, progress.reward_version, progress.weights, progress.rules
            ),
            logprobs_and_kl=learners.logprobs_and_kl,
            decode=learners.tokenizer.decode,
            held_back=None if apart is None else lambda pairs: apart.score(pairs, progress.weights, by_rules(pairs)),
            eos_ids=learners.tokenizer.eos_ids,
        ),
        max_tokens=limit,
        reward_model=progress.figures,
        held_back_model={} if apart is None else progress.held_back,
    )


def _seed(parts: TrainerParts, progress: Progress) -> int:
    return parts.settings.seed + progress.cycle
