"""Feedback from a program, beside whatever client it chats with:

    from rlhf_online.client import Feedback

    feedback = Feedback.beside(OpenAI(base_url="http://127.0.0.1:8000/v1", api_key=…))
    feedback.thumb(answer, up=True)

It imports the standard library alone, in some milliseconds.
"""

from rlhf_online.client.answers import Answer
from rlhf_online.client.feedback import AsyncFeedback, Feedback
from rlhf_online.client.sending import NotSent, Refused, Vote

__all__ = ["Answer", "AsyncFeedback", "Feedback", "NotSent", "Refused", "Vote"]
