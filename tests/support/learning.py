"""Learning in the tiny world within one process: the project's own code, simulated people, no services.

    demonstrations ──▶ fine_tune ──▶ samples ── people ──▶ rankings ──▶ RewardUpdater ──▶ reward model
                           └──────▶ policy ── sample ──▶ answers ── scores, or people's thumbs ──▶ PolicyUpdater ─┐
                                      ▲                                                                          │
                                      └──────────────────────────────────────────────────────────────────────────┘

Only `measure`, `best_of` and the people know the true reward. The same seed gives the same run.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from rlhf_online.events import Message
from rlhf_online.feedback.votes import Candidate, Comparison
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tokens import ChatTokenizer, Pair
from rlhf_online.rollout.types import LabelledAnswer, Rollout, ScoredRollout
from rlhf_online.simulation import processes, world
from rlhf_online.simulation.people import Person
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.simulation.world import Prompt
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.policy_update import PolicyReport, PolicyUpdater
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from rlhf_online.training.sft.demonstrations import Demonstration
from rlhf_online.training.sft.fine_tuning import Passes, fine_tune

Tokens = tuple[int, ...]
MAX_TOKENS = world.MAX_ANSWER_TOKENS
ANSWERS_A_RANKING = 4
REWARD = RewardTraining()
"""The defaults."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer in tokens and in words."""

    prompt: Prompt
    prompt_ids: Tokens
    token_ids: Tokens
    text: str
    finished: bool

    @property
    def pair(self) -> Pair:
        return self.prompt_ids, self.token_ids

    @property
    def reward(self) -> float:
        """The true one."""
        return world.true_reward(self.prompt, self.text, finished=self.finished)

    def utility(self, person: Person) -> float:
        return person.utility(self.prompt, self.text, finished=self.finished)


class Language:
    """The world's prompts and answers in the tokens of the model in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = ChatTokenizer(folder)
        self._ids = {
            prompt: self.tokenizer.prompt_ids([Message(role="user", content=prompt.text)]) for prompt in world.prompts()
        }

    def sample(self, policy: Policy, prompts: Sequence[Prompt], seed: int) -> list[Answer]:
        """One answer to each prompt, at temperature 1."""
        ids = [self._ids[prompt] for prompt in prompts]
        ends = self.tokenizer.eos_ids
        answers = policy.sample(ids, max_tokens=MAX_TOKENS, temperature=1.0, seed=seed, eos_ids=ends)
        return [
            Answer(prompt, prompt_ids, answer, self.tokenizer.decode(answer), answer[-1] in ends)
            for prompt, prompt_ids, answer in zip(prompts, ids, answers, strict=True)
        ]


# The stages before the policy learns


def fine_tune_world(
    folder: Path, seed: int, *, steps: int = processes.SFT_STEPS, dtype: Literal["float32", "bfloat16"] = "float32"
) -> Path:
    """The demo's fine-tuned model, in `folder`/sft."""
    write_tiny_model(folder / "base", weights_seed=None)
    fine_tune(
        folder / "base",
        [
            Demonstration(
                messages=[{"role": "user", "content": item.prompt}],
                answer={"role": "assistant", "content": item.answer},
            )
            for item in world.demonstrations(processes.DEMONSTRATIONS, seed)
        ],
        folder / "sft",
        Passes(steps=steps, batch=processes.SFT_BATCH, lr=processes.SFT_LR, seed=seed),
        dtype=dtype,
    )
    return folder / "sft"


def rankings(
    language: Language, policy: Policy, people: Sequence[Person], prompts: Sequence[Prompt], count: int, seed: int
) -> Iterator[Comparison]:
    """`count` rankings of four answers of the policy's to prompts among `prompts`, by people among `people`."""
    rng = random.Random(f"rankings {seed}")
    asked = rng.choices(prompts, k=count)
    answers = language.sample(policy, [prompt for prompt in asked for _ in range(ANSWERS_A_RANKING)], seed)
    for number in range(count):
        shown = answers[number * ANSWERS_A_RANKING : (number + 1) * ANSWERS_A_RANKING]
        yield ranking(shown, rng.choice(people), f"ranking-{seed}-{number}")


def ranking(shown: Sequence[Answer], person: Person, name: str, created_ms: int = 0) -> Comparison:
    """What the person thinks of the answers, in a conversation of its own."""
    order = person.rank([answer.utility(person) for answer in shown])
    return Comparison(
        event_id=name,
        conversation_id=name,
        person=person.name,
        prompt_token_ids=shown[0].prompt_ids,
        candidates=tuple(Candidate(token_ids=shown[place].token_ids, position=place) for place in order),
        tiers=tuple((index,) for index in range(len(order))),
        created_ms=created_ms,
    )


def reward_model(
    language: Language,
    sft: Path,
    votes: Sequence[Comparison],
    seed: int,
    settings: RewardTraining = REWARD,
    dtype: torch.dtype = torch.float32,
) -> RewardModel:
    """Trained on the votes in one update; its scores have mean 0 and variance 1 over the fine-tuned model's answers."""
    reference = language.sample(Policy.load(sft, tuning="full", dtype=dtype), world.training_prompts(), seed)
    heads = Heads(members=settings.heads, readout=settings.readout)
    model = RewardModel.load(sft, tuning="full", heads=heads, dtype=dtype, seed=seed)
    updater = RewardUpdater(model, settings, seed)
    updater.update(votes, [], [answer.pair for answer in reference])
    return updater.model


Scores = Callable[[Sequence[Answer]], Sequence[float]]


def scored_by(model: RewardModel) -> Scores:
    """The mean of the heads, for a model of one objective."""
    return lambda answers: model.scores([answer.pair for answer in answers]).mean((1, 2)).tolist()


def updater_on(policy: Policy, settings: PolicyTraining, model: RewardModel, seed: int) -> PolicyUpdater:
    """With the reward model's scores as the first values."""
    updater = PolicyUpdater(policy, settings, seed)
    begin_value(updater, model)
    return updater


def begin_value(updater: PolicyUpdater, model: RewardModel) -> None:
    """Let the values begin as the model's scores, once."""
    updater.init_value(*model.linear(torch.ones(1)))


def accuracy(model: RewardModel, answers: Sequence[Answer]) -> float:
    """Share of pairs of answers to one prompt, of different true reward, that the model orders as that does."""
    scores = scored_by(model)(answers)
    by_prompt: dict[Prompt, list[tuple[float, float]]] = {}
    for answer, score in zip(answers, scores, strict=True):
        by_prompt.setdefault(answer.prompt, []).append((answer.reward, score))
    right = [
        (a[1] - b[1]) * (a[0] - b[0]) > 0
        for judged in by_prompt.values()
        for number, a in enumerate(judged)
        for b in judged[:number]
        if abs(a[0] - b[0]) > 1e-9
    ]
    return sum(right) / len(right)


# Measuring


@dataclass(frozen=True, slots=True)
class Measured:
    """True reward on held-out prompts: the mean answer's to each prompt, in the order of `world.held_out_prompts`."""

    by_prompt: tuple[float, ...]
    samples: int
    kl: float = math.nan
    """Nats an answer from the reference (k1 on these answers)."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.by_prompt)

    def over(self, other: "Measured") -> tuple[float, float]:
        """Mean gain over `other`, paired by prompt, and its standard error (answers to one prompt are dependent)."""
        gains = [mine - theirs for mine, theirs in zip(self.by_prompt, other.by_prompt, strict=True)]
        return statistics.fmean(gains), statistics.stdev(gains) / len(gains) ** 0.5


def measure(language: Language, policy: Policy, *, seed: int, answers: int = 37) -> Measured:
    """On `answers` answers to each of the 111 held-out prompts (37: 4,107)."""
    asked = [prompt for prompt in world.held_out_prompts() for _ in range(answers)]
    given = language.sample(policy, asked, seed)
    pairs = [answer.pair for answer in given]
    own, reference = policy.logprobs(pairs), policy.logprobs(pairs, reference=True)
    kl = statistics.fmean(sum(p) - sum(r) for p, r in zip(own, reference, strict=True))
    return Measured(_by_prompt([answer.reward for answer in given], answers), len(given), kl)


def best_of(
    language: Language, policy: Policy, model: RewardModel, counts: Sequence[int], *, seed: int, pool: int = 592
) -> dict[int, Measured]:
    """The policy's answer that the reward model likes best of n, for each n, over all subsets of `pool` answers.

    A subset's best is the i-th worst of the pool with probability C(i − 1, n − 1) / C(pool, n).
    """
    asked = [prompt for prompt in world.held_out_prompts() for _ in range(pool)]
    given = language.sample(policy, asked, seed)
    scores = scored_by(model)(given)
    found: dict[int, Measured] = {}
    for n in counts:
        shares = [math.comb(i, n - 1) / math.comb(pool, n) for i in range(pool)]
        means = []
        for start in range(0, len(given), pool):
            worst_first = sorted(range(start, start + pool), key=scores.__getitem__)
            means.append(sum(share * given[i].reward for share, i in zip(shares, worst_first, strict=True)))
        found[n] = Measured(tuple(means), len(given) // n)
    return found


def _by_prompt(rewards: Sequence[float], answers: int) -> tuple[float, ...]:
    return tuple(statistics.fmean(rewards[at : at + answers]) for at in range(0, len(rewards), answers))


# Learning


@dataclass(slots=True)
class Loop:
    """`prompts` × `answers` an iteration, on training prompts. Without `scores` people's thumbs are what is learned."""

    language: Language
    updater: PolicyUpdater
    seed: int
    scores: Scores | None = None
    people: Sequence[Person] = ()
    prompts: int = 128
    answers: int = 4
    iteration: int = 0
    thumbs: int = 0
    reports: list[PolicyReport] = field(default_factory=list)

    def run(self, iterations: int) -> None:
        for _ in range(iterations):
            self.step(self.sample())

    def sample(self) -> list[Answer]:
        """Answers of the policy as it is now."""
        self.iteration += 1
        rng = random.Random(f"prompts {self.seed} {self.iteration}")
        chosen = rng.sample(world.training_prompts(), self.prompts)
        asked = [prompt for prompt in chosen for _ in range(self.answers)]
        return self.language.sample(self.updater.policy, asked, self.seed * 1_000_003 + self.iteration)

    def step(self, answers: Sequence[Answer], logprobs: Sequence[Sequence[float]] | None = None) -> PolicyReport:
        """An update on answers that were sampled with these log-probs, by default those of the policy as it is now."""
        if logprobs is None:
            logprobs = self.updater.policy.logprobs([answer.pair for answer in answers])
        scores = self.scores(answers) if self.scores is not None else [0.0] * len(answers)
        rollouts = [
            ScoredRollout(
                rollout=Rollout(
                    rollout_id=f"{self.iteration}-{number}",
                    prompt_token_ids=answer.prompt_ids,
                    token_ids=answer.token_ids,
                    logprobs=tuple(values),
                    policy_version="",
                    temperature=1.0,
                    finished=answer.finished,
                ),
                score=score,
            )
            for number, (answer, values, score) in enumerate(zip(answers, logprobs, scores, strict=True))
        ]
        report = self.updater.update(rollouts, self._thumbs(answers) if self.scores is None else ())
        self.reports.append(report)
        return report

    def _thumbs(self, answers: Sequence[Answer]) -> list[LabelledAnswer]:
        rng = random.Random(f"thumbs {self.seed} {self.iteration}")
        labels = []
        for answer in answers:
            person = rng.choice(self.people)
            up = person.thumb(answer.utility(person))
            if up is not None:
                labels.append(
                    LabelledAnswer(prompt_token_ids=answer.prompt_ids, token_ids=answer.token_ids, desirable=up)
                )
        self.thumbs += len(labels)
        return labels
