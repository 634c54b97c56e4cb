"""What `helm test` runs: one answer, one vote on it, and what becomes of the vote. The standard library alone.

CHAT_URL, RLHF_OPERATOR_TOKEN; UNTIL: joined, trained or live; TIMEOUT_S. Exit code 0, or 1 and a sentence that says how
far it came.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

ORDER = ("accepted", "waiting", "joined", "trained", "live")
AS_GOOD = {"joined": ("kept", "held_out", "held_back")}
"""Held out votes are joined, and never trained on: what the trainer does with one is by its conversation."""
POLL_S = 1.0
REQUEST_S = 120.0


class Failed(Exception):
    pass


def ask(method: str, path: str, body: dict | None = None) -> dict:
    """Raises Failed with what the service says."""
    request = urllib.request.Request(
        os.environ["CHAT_URL"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {os.environ['RLHF_OPERATOR_TOKEN']}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_S) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise Failed(f"{method} {path} was answered with {error.code}: {error.read().decode()[:300]}") from None
    except OSError as error:
        raise Failed(f"{method} {path} was not answered ({error}): is the service ready?") from None


def main() -> None:
    wanted, deadline = os.environ["UNTIL"], time.monotonic() + float(os.environ["TIMEOUT_S"])
    conversation = f"helm-test-{uuid.uuid4().hex}"
    message = {"role": "user", "content": "Say hello."}
    chat = {"model": "rlhf-online", "messages": [message], "max_tokens": 8, "conversation_id": conversation}
    answer = ask("POST", "/v1/chat/completions", chat)
    print(f"answered: {answer['id']}", flush=True)
    judged = {"completion_id": answer["id"], "index": 0}
    vote = {"thumb": {"answer": judged, "up": True}, "conversation_id": conversation, "source": "helm-test"}
    event = ask("POST", "/v1/feedback", vote)["event_id"]
    state = ""
    while True:
        told = ask("GET", f"/v1/feedback/{event}")
        if told["state"] != state:
            state = told["state"]
            print(told.get("message") or state, flush=True)
        if state in AS_GOOD.get(wanted, ()) or (state in ORDER and ORDER.index(state) >= ORDER.index(wanted)):
            return
        if time.monotonic() > deadline:
            raise Failed(f"the vote {event} is {state} and not {wanted} after {os.environ['TIMEOUT_S']} s")
        time.sleep(POLL_S)


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"error: {error}")
