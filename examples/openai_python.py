"""Chat with OpenAI's client, and say what you think of the answers: whole, streamed, corrected.

OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=… python examples/openai_python.py
"""

from openai import OpenAI

from rlhf_online.client import Feedback

client = OpenAI()
feedback = Feedback.beside(client)

answer = client.chat.completions.create(model="rlhf-online", messages=[{"role": "user", "content": "What is a gate?"}])
print(answer.choices[0].message.content)
feedback.thumb(answer, up=True, user="ann")

stream = client.chat.completions.create(
    model="rlhf-online", messages=[{"role": "user", "content": "And a fence?"}], stream=True
)
for chunk in feedback.follow(stream):
    print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="")
vote = feedback.thumb(up=False, user="ann")  # about the answer that was followed last
feedback.correct("A fence is what a gate is in.", user="ann")
feedback.withdraw(vote, user="ann")
