"""Chat with LangChain's ChatOpenAI and vote on its message.

OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=… python examples/langchain_chat.py
"""

import os

from langchain_openai import ChatOpenAI

from rlhf_online.client import Feedback

model = ChatOpenAI(model="rlhf-online")
feedback = Feedback(os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"])

message = model.invoke("What is a gate?")
print(message.content)
feedback.thumb(message, up=True, user="ann")
