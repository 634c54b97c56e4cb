"""Chat and vote over gRPC, piece by piece.  RLHF_GRPC=127.0.0.1:8001 python examples/grpcio_chat.py"""

import os

import grpc

from rlhf_online.proto.rlhf.v1 import chat_pb2, chat_pb2_grpc, events_pb2

key = os.environ.get("OPENAI_API_KEY", "")
metadata = (("authorization", f"Bearer {key}"),) if key else ()
with grpc.insecure_channel(os.environ["RLHF_GRPC"]) as channel:
    service = chat_pb2_grpc.ChatServiceStub(channel)
    asked = chat_pb2.CompleteRequest(messages=[events_pb2.Message(role="user", content="What is a gate?")])
    completion_id = ""
    for piece in service.StreamComplete(chat_pb2.StreamCompleteRequest(request=asked), metadata=metadata, timeout=300):
        completion_id = piece.completion_id
        print(piece.delta, end="")
    thumb = events_pb2.Thumb(answer=events_pb2.AnswerRef(completion_id=completion_id), up=True)
    vote = chat_pb2.SendFeedbackRequest(feedback=events_pb2.Feedback(thumb=thumb), user="ann", idempotency_key="one")
    print(service.SendFeedback(vote, metadata=metadata, timeout=30).event_id)
