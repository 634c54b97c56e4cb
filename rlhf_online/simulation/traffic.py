"""Traffic from simulated users: they chat through the public API, concurrently, and vote on the answers.

    conversation = chat (four answers) → ranking   |   chat as a stream (one answer) → perhaps a thumb

Conversations begin at `rate` a second, and at most `concurrency` are open, so that no queue builds up before a slow
service. Prompts are training prompts only. While chat fails (an engine that restarts), users vote on earlier answers,
which shows whether feedback is still accepted.

Invariant: `records` holds every request, every acknowledgement, and when each version's first answer arrived.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rlhf_online.simulation import client, world
from rlhf_online.simulation.client import Ack, ChatClient, Reply, RequestCounts, RequestFailed
from rlhf_online.simulation.people import Person
from rlhf_online.simulation.world import Prompt, true_reward

ANSWERS = 4
STREAM_SHARE = 0.1
"""Share of conversations that are streams with one answer and a thumb."""
AFTER_FAILURE_S = 1.0


@dataclass(slots=True)
class RewardStats:
    """Mean and standard error of the true reward, from running sums."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.n += 1
        self.total += value
        self.squares += value * value

    @property
    def mean(self) -> float:
        return self.total / self.n if self.n else 0.0

    @property
    def stderr(self) -> float:
        """Standard error of the mean, answers taken as independent."""
        if self.n < 2:
            return 0.0
        variance = max(0.0, self.squares - self.total * self.total / self.n) / (self.n - 1)
        return (variance / self.n) ** 0.5


@dataclass(frozen=True, slots=True)
class Sample:
    """An answer to show."""

    prompt: str
    answer: str
    reward: float
    version: str


@dataclass(slots=True)
class Records:
    """What the clients observed; times are `time.monotonic()`."""

    traffic: RequestCounts = field(default_factory=RequestCounts)
    acks: dict[str, Ack] = field(default_factory=dict)
    """By event id: an event acknowledged twice counts once, at its first acknowledgement."""
    by_version: dict[str, RewardStats] = field(default_factory=dict)
    first_answer: dict[str, float] = field(default_factory=dict)
    rankings: int = 0
    thumbs: int = 0
    answers: int = 0
    across_swaps: int = 0
    """Answers that two versions wrote."""
    late_acks: int = 0
    """Votes acknowledged while chat was failing."""
    latest: deque[Sample] = field(default_factory=lambda: deque(maxlen=6))

    def saw(self, prompt: Prompt, reply: Reply) -> float:
        """Record an answer; returns its true reward, which no learner is told."""
        reward = true_reward(prompt, reply.text, finished=reply.finished)
        self.answers += 1
        for version in reply.versions:
            self.first_answer[version] = min(reply.at, self.first_answer.get(version, reply.at))
        if len(set(reply.versions)) == 1:
            self.by_version.setdefault(reply.versions[0], RewardStats()).add(reward)
        else:
            self.across_swaps += 1
        if reply.versions and reply.index == 0:
            self.latest.append(Sample(prompt.text, reply.text, reward, reply.versions[-1]))
        return reward


class Pacer:
    """Lets `rate` callers a second pass; missed ones are not made up for."""

    def __init__(self, rate: float) -> None:
        self._interval = 1.0 / rate
        self._next = 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        self._next = max(self._next + self._interval, now)
        await asyncio.sleep(self._next - now)


class TrafficGenerator:
    """`people` chat with `chat` until told to stop."""

    def __init__(
        self,
        chat: ChatClient,
        people: Sequence[Person],
        records: Records,
        *,
        seed: int,
        rate: float,
        concurrency: int = 16,
    ) -> None:
        self._chat = chat
        self._people = people
        self._prompts = world.training_prompts()
        self._records = records
        self._rng = random.Random(f"crowd {seed}")
        self._pacer = Pacer(rate)
        self._at_once = concurrency
        self._earlier: deque[tuple[Person, Prompt, list[Reply]]] = deque(maxlen=256)

    async def run(self, stop: asyncio.Event) -> None:
        """Returns when `stop` is set and the open conversations have ended."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._at_once):
                group.create_task(self._talk(stop))

    async def _talk(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._pacer.wait()
            if stop.is_set():
                return
            person, prompt = self._rng.choice(self._people), self._rng.choice(self._prompts)
            streams = self._rng.random() < STREAM_SHARE
            try:
                await (self._thumb if streams else self._rank)(person, prompt)
            except RequestFailed:
                await self._vote_on_earlier_answers()
                await asyncio.sleep(AFTER_FAILURE_S)

    async def _rank(self, person: Person, prompt: Prompt) -> None:
        replies = await self._chat.chat(prompt.text, n=ANSWERS, user=person.name)
        for reply in replies:
            self._records.saw(prompt, reply)
        self._earlier.append((person, prompt, replies))
        await self._vote_ranking(person, prompt, replies)

    async def _vote_ranking(self, person: Person, prompt: Prompt, replies: list[Reply]) -> None:
        order = person.rank([_utility(person, prompt, reply) for reply in replies])
        await self._send(person, replies, client.ranking(replies, order))
        self._records.rankings += 1

    async def _thumb(self, person: Person, prompt: Prompt) -> None:
        reply = await self._chat.stream(prompt.text, user=person.name)
        self._records.saw(prompt, reply)
        if (up := person.thumb(_utility(person, prompt, reply))) is not None:
            await self._send(person, [reply], client.thumb(reply, up))
            self._records.thumbs += 1

    async def _vote_on_earlier_answers(self) -> None:
        """Chat is down: rank earlier answers once more, which is a vote of its own."""
        if not self._earlier:
            return
        person, prompt, replies = self._earlier.popleft()
        try:
            await self._vote_ranking(person, prompt, replies)
            self._records.late_acks += 1
        except RequestFailed:
            pass

    async def _send(self, person: Person, replies: list[Reply], kind: dict) -> None:
        ack = await self._chat.feedback(
            {
                "user": person.name,
                "conversation_id": replies[0].conversation_id,
                "source": "crowd",
                "response_ms": person.response_ms(),
                "shown": [reply.ref for reply in replies],
                **kind,
            }
        )
        self._records.acks.setdefault(ack.event_id, ack)


def _utility(person: Person, prompt: Prompt, reply: Reply) -> float:
    return person.utility(prompt, reply.text, finished=reply.finished)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The true reward of answers to held-out prompts through the serving API."""

    mean: float
    stderr: float
    """Of the mean, from the spread of the prompts' means: answers to one prompt are not independent."""
    n: int
    samples: tuple[Sample, ...]
    versions: tuple[str, ...]


async def measure(
    chat: ChatClient,
    prompts: Sequence[Prompt],
    *,
    answers: int,
    concurrency: int = 6,
    records: Records | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Measurement:
    """Ask every prompt for `answers` answers at temperature 1 and average their true reward. Raises RequestFailed.

    The answers are not stored: nothing learns from a held-out prompt.
    """
    slots = asyncio.Semaphore(concurrency)
    done = 0

    async def ask(prompt: Prompt) -> list[tuple[Reply, float]]:
        nonlocal done
        async with slots:
            replies = await chat.chat(prompt.text, n=answers, store=False)
        done += 1
        progress(done)
        return [(reply, true_reward(prompt, reply.text, finished=reply.finished)) for reply in replies]

    judged = await asyncio.gather(*(ask(prompt) for prompt in prompts))
    means, versions, samples = RewardStats(), set(), []
    for prompt, rewarded in zip(prompts, judged, strict=True):
        means.add(sum(reward for _, reward in rewarded) / answers)
        reply, reward = rewarded[0]
        samples.append(Sample(prompt.text, reply.text, reward, reply.versions[-1] if reply.versions else ""))
        for reply, _ in rewarded:
            versions.update(reply.versions)
            if records is not None:
                for version in reply.versions:
                    records.first_answer[version] = min(reply.at, records.first_answer.get(version, reply.at))
    return Measurement(
        mean=means.mean,
        stderr=means.stderr,
        n=len(prompts) * answers,
        samples=tuple(samples),
        versions=tuple(sorted(versions)),
    )
