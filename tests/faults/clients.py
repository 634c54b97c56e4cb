"""Clients that chat and vote without a pause over HTTP, and record every event id that was acknowledged to them.

They do what real clients do: votes before the answer is complete, votes sent twice, and votes sent again
with the same key when no reply came. An event counts as acknowledged only when its id was read in a reply.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import aiohttp

from rlhf_online.simulation import world
from tests.support.events import streamed

ANSWER_TOKENS = 8
TIMEOUT_S = 10.0
AGAIN_S = 0.1
PROMPTS = [prompt.text for prompt in world.prompts()]


class Clients:
    """`people` who go on until `stop`. `acknowledged` is a file with an event id a line, complete at any moment."""

    def __init__(
        self, url: str, acknowledged: Path, *, people: int, pause_s: float, seed: int, may_refuse: Callable[[], bool]
    ) -> None:
        self.answers: set[str] = set()
        self.votes: set[str] = set()
        """Event ids that were acknowledged."""
        self.sent_again = 0
        """Votes to which no reply came, each time."""
        self.refused = self.refused_unduly = 0
        """Votes that were refused (429 or 503), and those of them for which `may_refuse` saw no reason."""
        self.not_logged = 0
        """Answers whose reply said so."""
        self._url = url
        self._may_refuse = may_refuse
        self._pause_s = pause_s
        self._seed = seed
        self._file = acknowledged.open("a", buffering=1)
        self._people = people
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        self._tasks = [asyncio.create_task(self._person(f"person-{number}")) for number in range(self._people)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._session is not None
        await self._session.close()
        self._file.close()

    async def stop(self) -> None:
        """Begin nothing new, and finish what is in progress. Raises the error of any of them."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    def check(self) -> None:
        """Raises what a person stumbled over: a reply that no kill explains."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def _person(self, name: str) -> None:
        rng = random.Random(f"{self._seed} {name}")
        while not self._stopping.is_set():
            act = rng.choices([self._rank, self._thumb, self._vote_early], [4, 3, 3])[0]
            try:
                await act(name, rng)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(AGAIN_S)
            await asyncio.sleep(rng.uniform(0, 2 * self._pause_s))

    # What they do

    async def _rank(self, name: str, rng: random.Random) -> None:
        completion_id = await self._ask(rng, n=2)
        tiers = [[{"completion_id": completion_id, "index": index}] for index in rng.sample(range(2), 2)]
        await self._vote(_sender(name, rng) | {"ranking": {"tiers": tiers}})

    async def _thumb(self, name: str, rng: random.Random) -> None:
        """Every other time the vote is sent twice at once."""
        vote = _sender(name, rng) | _thumb(await self._ask(rng, n=1), rng)
        await asyncio.gather(*[self._vote(vote) for _ in range(rng.randint(1, 2))])

    async def _vote_early(self, name: str, rng: random.Random) -> None:
        """Vote as soon as the answer has begun: before it is in the log, and even if it never comes to its end."""
        votes: list[asyncio.Task[None]] = []
        try:
            async for chunk in self._stream(rng):
                if not votes:
                    vote = _sender(name, rng) | _thumb(chunk["id"], rng)
                    votes.append(asyncio.create_task(self._vote(vote)))
                if (told := chunk.get("rlhf")) is not None:
                    self._note_answer(told)
        except (aiohttp.ClientError, TimeoutError):
            pass
        await asyncio.gather(*votes)

    # Requests

    async def _ask(self, rng: random.Random, n: int) -> str:
        """The completion's id. Raises ClientError, TimeoutError."""
        async with self._post("/v1/chat/completions", _question(rng, n=n)) as response:
            told = (await response.json())["rlhf"]
        self._note_answer(told)
        return told["completion_id"]

    async def _stream(self, rng: random.Random) -> AsyncIterator[dict[str, Any]]:
        async with self._post("/v1/chat/completions", _question(rng, n=1, stream=True)) as response:
            async for chunk in streamed(response):
                yield chunk

    async def _vote(self, body: dict[str, Any]) -> None:
        """Send it until it is acknowledged, whatever happens to the service meanwhile."""
        while True:
            try:
                async with self._post("/v1/feedback", body) as response:
                    self._note((await response.json())["event_id"], self.votes)
                    return
            except (aiohttp.ClientError, TimeoutError) as error:
                if isinstance(error, Refused):
                    self.refused += 1
                    self.refused_unduly += not self._may_refuse()
                self.sent_again += 1
                await asyncio.sleep(AGAIN_S)

    def _post(self, path: str, body: dict[str, Any]) -> "_Post":
        assert self._session is not None
        return _Post(self._session, self._url + path, body)

    def _note_answer(self, told: dict[str, Any]) -> None:
        if told["logged"]:
            self._note(told["completion_id"], self.answers)
        else:
            self.not_logged += 1

    def _note(self, event_id: str, among: set[str]) -> None:
        self._file.write(f"{event_id}\n")
        among.add(event_id)


class Refused(aiohttp.ClientError):
    """The service takes no such request now."""


class _Post:
    """A request; a reply that says "later" raises Refused, one that says "never" AssertionError."""

    def __init__(self, session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> None:
        self._request = session.post(url, json=body)

    async def __aenter__(self) -> aiohttp.ClientResponse:
        response = await self._request.__aenter__()
        if response.status != 200:
            said = await response.text()
            assert response.status in (429, 503), f"HTTP {response.status}: {said}"
            raise Refused(said)
        return response

    async def __aexit__(self, *error: Any) -> None:
        await self._request.__aexit__(*error)


def _question(rng: random.Random, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": rng.choice(PROMPTS)}]
    return {"messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 1.0, **more}


def _sender(name: str, rng: random.Random) -> dict[str, Any]:
    """What every vote says of its sender: who, and the key by which it is known when it is sent again."""
    return {"user": name, "idempotency_key": f"{rng.getrandbits(128):032x}"}


def _thumb(completion_id: str, rng: random.Random) -> dict[str, Any]:
    return {"thumb": {"answer": {"completion_id": completion_id, "index": 0}, "up": rng.random() < 0.5}}
