"""What `helm test` runs: answers, a vote on each, and what becomes of the votes. The standard library alone.

CHAT_URL, RLHF_OPERATOR_TOKEN; VOTES; UNTIL: joined, trained or live; TIMEOUT_S. Exit code 0 once one vote has come so
far, or 1 and a sentence that says how far they came.
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
"""Such votes are joined, and some are never trained on: which, is by the conversation's id."""
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


def vote(up: bool) -> str:
    """Ask for an answer, judge it; the vote's id."""
    conversation = f"helm-test-{uuid.uuid4().hex}"
    message = {"role": "user", "content": "Say hello."}
    chat = {"model": "rlhf-online", "messages": [message], "max_tokens": 8, "conversation_id": conversation}
    answer = {"completion_id": ask("POST", "/v1/chat/completions", chat)["id"], "index": 0}
    judged = {"thumb": {"answer": answer, "up": up}, "conversation_id": conversation, "source": "helm-test"}
    return ask("POST", "/v1/feedback", judged)["event_id"]


def main() -> None:
    wanted, deadline = os.environ["UNTIL"], time.monotonic() + float(os.environ["TIMEOUT_S"])
    states = {vote(up=number % 2 == 0): "" for number in range(int(os.environ["VOTES"]))}
    while True:
        for event in states:
            told = ask("GET", f"/v1/feedback/{event}")
            if told["state"] != states[event]:
                states[event] = told["state"]
                print(f"{event}: {told.get('message') or told['state']}", flush=True)
            if states[event] in AS_GOOD.get(wanted, ()):
                return
            if states[event] in ORDER and ORDER.index(states[event]) >= ORDER.index(wanted):
                return
        if time.monotonic() > deadline:
            seen = ", ".join(sorted(set(states.values())))
            raise Failed(f"no vote is {wanted} after {os.environ['TIMEOUT_S']} s: they are {seen}")
        time.sleep(POLL_S)


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"error: {error}")
