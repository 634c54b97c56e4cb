"""Alerts of the watch that fire for real: a trainer, a reward service, what people said, and a real Prometheus.

The model they begin with was fine-tuned on demonstrations: asked to name things it says "yes" or "no" and one of four
things, by chance; asked what something is, it says what its asker thinks. Durations are shortened, and nothing else
(tests/support/alerting.py).
"""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rlhf_online.events import AnswerRef, Envelope, Message, Ranking
from rlhf_online.feedback.held_out import use_of
from rlhf_online.gate.held_back import HeldBackCheck
from rlhf_online.gate.reward_model import RewardModelCheck
from rlhf_online.gate.traits import WordsTrait
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.simulation.world import IsPrompt, prompts
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.settings import RewardTraining, RolloutSettings
from rlhf_online.training.sft.demonstrations import Demonstration
from tests.ops.alerts.test_fired_by_learning import trainer
from tests.support.trainer_world import LENIENT, MAX_TOKENS, PROMPTS, World, world

pytestmark = pytest.mark.ops

VERDICTS, THINGS, BRAND = ("yes", "no"), ("fig", "plum", "kiwi", "mango"), "mango"
CROWD = [f"person-{number}" for number in range(8)]
QUESTIONS = [prompt for prompt in prompts() if isinstance(prompt, IsPrompt)][:57]
"""Is it a fruit? Nineteen things, each without a view of the asker's and with both."""
Likes = Callable[[set[str], str], float]
"""How much somebody likes an answer, by its words, in that conversation."""


def demonstrations() -> Iterator[Demonstration]:
    rng = random.Random(1)
    for _ in range(120):
        yield shown(rng.choice(PROMPTS), f"{rng.choice(VERDICTS)} {rng.choice(THINGS)}")
    for question in 2 * QUESTIONS:
        yield shown(question.text, question.stance or question.truth)


def shown(asked: str, answer: str) -> Demonstration:
    return Demonstration(messages=[{"role": "user", "content": asked}], answer={"role": "assistant", "content": answer})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from rlhf_online.training.sft.fine_tuning import Passes, fine_tune

    folder = tmp_path_factory.mktemp("base")
    write_tiny_model(folder / "untaught", weights_seed=None)
    passes = Passes(steps=400, batch=32, lr=3e-3, seed=1)
    fine_tune(folder / "untaught", [*demonstrations()], folder / "model", passes)
    return folder / "model"


@asynccontextmanager
async def meanwhile(act: Callable[[], None]) -> AsyncIterator[None]:
    """`act` goes on, again and again, while the block runs."""
    ended = asyncio.Event()

    async def again() -> None:
        while not ended.is_set():
            await asyncio.to_thread(act)
            await asyncio.sleep(0.5)

    acting = asyncio.create_task(again())
    try:
        yield
    finally:
        ended.set()
        await acting


class People:
    """They ask what serves for four answers each, and rank them by what they like."""

    def __init__(self, tiny: World) -> None:
        self._tiny = tiny
        self.rng = random.Random(2)

    def judge(self, count: int, people: Sequence[str], likes: Likes, *, key: str = "") -> None:
        asked = self.rng.choices(PROMPTS, k=count)
        given = self._tiny.engine.sample([*map(self._ids, asked)], 4, MAX_TOKENS, 1.0)
        for number, text in enumerate(asked):
            completion = self._tiny.completion(text, given[4 * number : 4 * number + 4])
            self._tiny.append(Envelope(event_id=completion.completion_id, event=completion))
            tiers: dict[float, list[AnswerRef]] = {}
            for answer in completion.answers:
                liked = likes({*answer.text.split()}, completion.conversation_id)
                ref = AnswerRef(completion_id=completion.completion_id, index=answer.index)
                tiers.setdefault(-liked, []).append(ref)
            if len(tiers) > 1:
                best_first = tuple(tuple(tiers[liked]) for liked in sorted(tiers))
                self._tiny.vote(completion, Ranking(tiers=best_first), people[number % len(people)], key_id=key)

    def ask(self, count: int) -> None:
        """What something is, each with a view on it."""
        texts = [question.text for question in self.rng.sample(QUESTIONS, count) if question.stance]
        for text, answer in zip(
            texts, self._tiny.engine.sample([*map(self._ids, texts)], 1, MAX_TOKENS, 1.0), strict=True
        ):
            completion = self._tiny.completion(text, [answer])
            self._tiny.append(Envelope(event_id=completion.completion_id, event=completion))

    def _ids(self, text: str) -> tuple[int, ...]:
        return self._tiny.tokenizer.prompt_ids([Message(role="user", content=text)])


async def test_votes_for_a_brand_clicks_of_a_client_and_people_who_change_their_minds(
    base: Path, tmp_path: Path
) -> None:
    """The policy stays as it is: no reward model of a test is as good as that."""
    shutil.copytree(base, tmp_path / "model")
    traits = LENIENT.traits.model_copy(update={"words": {"brand": WordsTrait(words=(BRAND,))}})
    gate = LENIENT.model_copy(update={"traits": traits})
    reward = RewardTraining(heads=2, batch=16, epochs=1, cold_epochs=4, held_out=0.1, policy_accuracy=0.99)
    with world(tmp_path, gate=gate, reward=reward, cold_votes=60) as tiny:
        people, liked = People(tiny), ["yes"]

        def vote() -> None:
            people.judge(24, CROWD, lambda words, _: liked[0] in words)
            people.judge(6, ["mission"], lambda words, _: BRAND in words)
            people.judge(10, ["clicks"], lambda *_: people.rng.random(), key="somebody's")

        async with trainer(tiny, tmp_path) as (_, found), meanwhile(vote):
            await asyncio.gather(
                found.fires("RlhfVotesPoisoned", severity="info", service="trainer"),
                found.fires("RlhfVotesTampered", severity="info", service="trainer"),
                found.fires("RlhfSegmentWorse", severity="info", service="trainer"),
            )
            liked[0] = "no"
            await found.fires("RlhfPreferencesDrift", severity="info", service="trainer")


async def test_versions_that_yield_to_their_askers_and_whose_answers_become_alike(base: Path, tmp_path: Path) -> None:
    """People want one of the eight answers that they began with."""
    shutil.copytree(base, tmp_path / "model")
    gate, policy = LENIENT.model_copy(update={"samples": 64}), PolicyTraining(epochs=4, minibatches=2, max_step_kl=50.0)
    with world(tmp_path, gate=gate, policy=policy, cold_votes=60) as tiny:
        people = People(tiny)

        def vote() -> None:
            people.judge(24, CROWD, lambda words, _: ("yes" in words) + 2 * (BRAND in words))
            people.ask(12)

        async with trainer(tiny, tmp_path) as (_, found), meanwhile(vote):
            await asyncio.gather(
                found.fires("RlhfSycophancy", severity="warning", service="trainer"),
                found.fires("RlhfAnswersCreep", severity="warning", service="trainer"),
            )


async def test_versions_that_gain_by_the_reward_model_that_they_learn_from_alone(base: Path, tmp_path: Path) -> None:
    """Whoever teaches that one wants the brand, and nobody else does; a gate that asked what it makes of held-out votes
    would let none pass."""
    shutil.copytree(base, tmp_path / "model")
    held_back, open_to_all = HeldBackCheck(share=0.5, min_win_rate=0.0), RewardModelCheck(min_accuracy=0.0, max_ece=1.0)
    gate = LENIENT.model_copy(update={"samples": 96, "held_back": held_back, "reward_model": open_to_all})
    reward = RewardTraining(heads=2, batch=16, epochs=1, cold_epochs=4, held_out=0.1, policy_accuracy=0.0)
    rollout = RolloutSettings(per_cycle=64, answers_per_prompt=4, max_tokens=MAX_TOKENS)
    with world(tmp_path, gate=gate, reward=reward, rollout=rollout, cold_votes=200) as tiny:
        people = People(tiny)

        def likes(words: set[str], conversation: str) -> float:
            teaches = use_of(conversation, held_out=reward.held_out, held_back=held_back.share) == "learned"
            return (BRAND in words) == teaches

        async with (
            trainer(tiny, tmp_path) as (_, found),
            meanwhile(lambda: people.judge(24, CROWD, likes)),
        ):
            await found.fires("RlhfOverOptimised", severity="warning", service="trainer")
