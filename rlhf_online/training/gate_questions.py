"""What the gate is told beyond the answers to logged prompts: golden prompts, and what traits are worth.

Both are asked with what the trainer holds: the candidate in memory, the version that serves, the reward models.
"""

from dataclasses import replace
from pathlib import Path

from rlhf_online.errors import ConfigError, InvalidInput
from rlhf_online.gate.audit import Auditors, Pair, audit
from rlhf_online.gate.check import Evidence, GoldenAnswer, Tokens, TraitEffect
from rlhf_online.gate.golden_prompts import GoldenPrompt, read_golden
from rlhf_online.models.limits import ModelLimits
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.texts.words import phrase
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.progress import Progress

GREEDY = 0.01
"""The temperature of answers to golden prompts: the least that the engine samples at, so that they are repeatable."""

Golden = tuple[GoldenPrompt, Tokens]


def golden_prompts(path: Path | None, tokenizer: ChatTokenizer, limits: ModelLimits) -> tuple[Golden, ...]:
    """Those in the file, as tokens. Raises ConfigError, also for one that the model cannot be asked."""
    found = []
    for prompt in read_golden(path):
        try:
            ids = tokenizer.prompt_ids([message.model_dump() for message in prompt.messages])
            if len(ids) >= limits.context:
                raise InvalidInput(f"{len(ids)} tokens do not fit the model's context of {limits.context}")
        except InvalidInput as error:
            raise ConfigError(f"{path}, prompt {prompt.name!r}: messages: {error}") from error
        found.append((prompt, ids))
    return tuple(found)


def questioned(parts: TrainerParts, progress: Progress, evidence: Evidence, seed: int) -> Evidence:
    """The evidence with whose conversations all its prompts stem from, what traits are worth, and the golden answers.

    A fresh answer of the live version is to a prompt that somebody asked.

    Raises Stopped while a service is away.
    """
    inputs = parts.intake.policy_inputs
    people = evidence.people or [""] * len(evidence.prompts)
    return replace(
        evidence,
        origins=[own or inputs.origin(prompt) for own, prompt in zip(evidence.origins, evidence.prompts, strict=True)],
        people=[own or inputs.asked_by(prompt) for own, prompt in zip(people, evidence.prompts, strict=True)],
        traits=_audited(parts, progress, evidence),
        golden=golden_answers(parts, progress, seed) if evidence.prompts else (),
    )


def _audited(parts: TrainerParts, progress: Progress, evidence: Evidence) -> dict[str, TraitEffect]:
    tokenizer, limits = parts.learners.tokenizer, parts.learners.limits

    def answer_ids(text: str) -> Tokens | None:
        ids = tokenizer.answer_ids(text)
        whole = "".join(tokenizer.decode(ids).split()) == "".join(text.split())
        return ids if whole and len(ids) < limits.context else None

    def prompt_ids(prompt: Tokens, old: str, new: str) -> Tokens | None:
        return tokenizer.edited(prompt, lambda text: phrase(old).sub(lambda _: new, text))

    # What rules pay for was written down: the question is what the reward models have learned to pay for.
    weights = {name: progress.weights[name] for name in parts.learners.reward.model.objectives}

    def score(pairs: list[Pair]) -> list[float]:
        return [item.score for item in parts.experience.score(pairs, progress.reward_version, weights)]

    apart = parts.held_back if evidence.held_back_knows else None
    auditors = Auditors(
        answer_ids=answer_ids,
        prompt_ids=prompt_ids,
        score=score,
        held_back=None if apart is None else lambda pairs: [s.score for s in apart.score(pairs, weights)],
    )
    return audit(parts.settings.gate.traits, evidence, auditors, evidence.live.held_back)


def golden_answers(parts: TrainerParts, progress: Progress, seed: int) -> list[GoldenAnswer]:
    """Of the candidate in memory and of the live version. An engine that serves another version by now, or does not
    take a prompt, gives no answer of the live version."""
    if not parts.golden:
        return []
    learners, limit = parts.learners, parts.settings.rollout.max_tokens
    prompts = [ids for _, ids in parts.golden]
    answers = learners.sample(prompts, max_tokens=limit, temperature=GREEDY, seed=seed)
    live = parts.retrier.call(
        "sampling answers to golden prompts", lambda: parts.experience.sampler.sample(prompts, 1, limit, GREEDY)
    )
    before = {
        rollout.prompt_token_ids: rollout.token_ids
        for rollout in live
        if rollout.policy_version == progress.policy_version
    }
    decode = learners.tokenizer.decode
    return [
        GoldenAnswer(prompt=prompt, candidate=decode(answer), live=decode(before[ids]) if ids in before else None)
        for (prompt, ids), answer in zip(parts.golden, answers, strict=True)
    ]
