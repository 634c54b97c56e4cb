"""Votes counted from a real log, a real ledger and a checkpoint's files as the trainer writes them."""

import json
from pathlib import Path

import pytest

from rlhf_online.config import LogSettings
from rlhf_online.durable import write_json
from rlhf_online.eventlog import open_sink
from rlhf_online.events import Answer, AnswerRef, Completion, Envelope, Feedback, Message, Sampling, Thumb
from rlhf_online.feedback.answer_store import AnswerStore
from rlhf_online.feedback.join import Join
from rlhf_online.simulation import vote_counts
from rlhf_online.state import StateDir
from rlhf_online.training.ledger import Ledger
from rlhf_online.wire import encode

LOG = LogSettings()


def vote(event_id, completion_id="c"):
    kind = Thumb(answer=AnswerRef(completion_id=completion_id), up=True)
    return Envelope(event_id=event_id, event=Feedback(conversation_id="talk", person="", kind=kind, created_ms=1))


def completion():
    answer = Answer(index=0, text="yes", token_ids=(5,), logprobs=(-0.1,), spans=(), finish_reason="stop")
    event = Completion(
        completion_id="c",
        conversation_id="talk",
        person="",
        messages=(Message(role="user", content="fig"),),
        prompt_token_ids=(1,),
        answers=(answer,),
        sampling=Sampling(),
        started_ms=0,
        finished_ms=1,
    )
    return Envelope(event_id="c", event=event)


@pytest.fixture
def state(tmp_path):
    """Ten records: the completion, then v1 … v9, of which v9 is new to whoever stopped reading at 9."""
    state = StateDir(tmp_path)
    sink = open_sink(LOG, state.log)
    futures = [sink.append(encode(envelope)) for envelope in (completion(), *(vote(f"v{n}") for n in range(1, 10)))]
    assert [future.result(timeout=30) for future in futures] == list(range(10))
    sink.close()
    return state


def checkpoint(state, number, ledger, position, join):
    names = ledger.seal(state.checkpoints / "ledger")
    folder = state.checkpoints / f"{number:06d}"
    write_json(folder / "intake.json", {"position": position, "join": join.to_json(), "votes": []})
    write_json(folder / "manifest.json", {"number": number, "ledger": {name: {} for name in names}, "files": {}})


def ledger_of(**dispositions):
    ledger = Ledger()
    for event_id, disposition in dispositions.items():
        assert ledger.take(event_id, disposition)
    return ledger


def empty() -> Join:
    return Join(AnswerStore(Path("nowhere")), 1000)


ACKED = [f"v{n}" for n in range(1, 10)]


def test_without_a_checkpoint_everything_is_pending(state):
    counts = vote_counts.count_votes(state, LOG, ACKED)
    assert (counts.accepted, counts.pending, counts.trained) == (9, 9, 0)
    assert counts.balanced


def test_every_vote_has_one_place(state):
    ledger = ledger_of(
        v1="trained", v2="trained", v3="held_out", v4="orphaned", v5="dead_lettered", v9="withdrawn", r="rollout"
    )
    ledger.seal(state.checkpoints / "ledger")
    ledger.take("v6", "trained")
    join = empty()
    for event_id in ("v7", "v8"):
        join.add(vote(event_id, completion_id="never came"))
    checkpoint(state, 3, ledger, {"local": 9}, join)
    counts = vote_counts.count_votes(state, LOG, ACKED)
    assert (counts.trained, counts.held_out, counts.orphaned, counts.dead_lettered) == (3, 1, 1, 1)
    assert counts.pending == 2  # v7 and v8 wait for their answers
    assert counts.withdrawn == 1
    assert counts.balanced
    assert counts.trained_ids == {"v1", "v2", "v6"}
    assert counts.trained_twice == 0


def test_a_lost_vote_unbalances_the_counts(state):
    checkpoint(state, 1, ledger_of(v1="trained"), {"local": 10}, empty())
    counts = vote_counts.count_votes(state, LOG, ACKED)
    assert (counts.accepted, counts.trained, counts.pending) == (9, 1, 0)
    assert not counts.balanced


def test_the_newest_complete_checkpoint_counts(state):
    checkpoint(state, 9, ledger_of(v1="trained"), {"local": 1}, empty())
    checkpoint(state, 10, ledger_of(v1="trained", v2="trained"), {"local": 1}, empty())
    (state.checkpoints / "000011").mkdir()
    assert vote_counts.count_votes(state, LOG, ACKED).trained == 2


def test_an_event_trained_in_two_segments_is_seen(state):
    ledger = ledger_of(v1="trained", v2="trained")
    checkpoint(state, 1, ledger, {"local": 3}, empty())
    names = [*ledger.seal(state.checkpoints / "ledger"), *ledger_of(v2="trained").seal(state.checkpoints / "ledger")]
    manifest = state.checkpoints / "000001" / "manifest.json"
    values = json.loads(manifest.read_text()) | {"ledger": {name: {} for name in names}}
    manifest.write_text(json.dumps(values))
    assert vote_counts.count_votes(state, LOG, ACKED).trained_twice == 1


def test_votes_of_other_clients_are_not_counted(state):
    checkpoint(state, 1, ledger_of(v1="trained", v2="trained"), {"local": 3}, empty())
    counts = vote_counts.count_votes(state, LOG, ["v2", "v3", "v9"])
    assert (counts.accepted, counts.trained, counts.pending) == (3, 1, 2)
