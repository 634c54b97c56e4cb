"""The same without waiting: two answers, of which one is better.

OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=… python examples/openai_async.py
"""

import asyncio

from openai import AsyncOpenAI

from rlhf_online.client import Answer, AsyncFeedback


async def main() -> None:
    async with AsyncOpenAI() as client:
        feedback = AsyncFeedback.beside(client)
        answers = await client.chat.completions.create(
            model="rlhf-online", messages=[{"role": "user", "content": "Name a colour."}], n=2
        )
        first, second = (Answer(answers.id, choice.index) for choice in answers.choices)
        await feedback.prefer(first, second, strength=2, user="ann")


asyncio.run(main())
