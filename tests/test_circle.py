"""The whole circle, every part real: chat, stream, vote, learn, gate, swap, and the next answer by the new weights.

A stack is started once; the tests run in order, and each takes the state over that the one before left.
"""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from rlhf_online.algorithms.kl import k3
from rlhf_online.config import LogSettings
from rlhf_online.eventlog import open_source
from rlhf_online.events import Answer, Completion
from rlhf_online.models.policy import Policy
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation import world
from rlhf_online.simulation.processes import descendants
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.simulation.vote_counts import count_votes
from rlhf_online.state import StateDir
from rlhf_online.training.sft.demonstrations import corrections
from rlhf_online.training.sft.fine_tuning import to_pairs
from rlhf_online.versions import open_registry
from rlhf_online.wire import decode
from tests.faults.auditor import audit
from tests.support.circle import CYCLE_VOTES, PROMPTS, chat, live, pid, served, settings, vote
from tests.support.conversations import CONVERSATIONS
from tests.support.otlp import Received, Receiver, receiver
from tests.support.processes import alive
from tests.support.stack import Stack, start
from tests.support.waiting import ENGINE_TEST_S

pytestmark = pytest.mark.timeout(ENGINE_TEST_S)

LOG = LogSettings()
LONG = 100
STREAMS = 4
SWAPS_TRIED = 10


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: Receiver) -> Iterator[Stack]:
    running = start(settings(tmp_path_factory.mktemp("circle"), LOG, traces=collector.url))
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def acknowledged() -> set[str]:
    """Event ids of the votes that the service acknowledged."""
    return set()


def completions(state: StateDir) -> list[Completion]:
    source = open_source(LOG, state.log)
    try:
        records, _ = source.read({}, 1_000_000)
    finally:
        source.close()
    return [e.event for e in (decode(record.payload) for record in records) if isinstance(e.event, Completion)]


def recompute(state: StateDir, completion: Completion, answer: Answer) -> list[float]:
    """Each token's log-prob under the weights of the version that the log says wrote it."""
    registry = open_registry(state.versions)
    ends = [span.first_token for span in answer.spans[1:]] + [len(answer.token_ids)]
    found: list[float] = []
    for span, end in zip(answer.spans, ends, strict=True):
        policy = Policy.load(registry.path(span.policy_version), tuning="full")
        logprobs = policy.logprobs([(completion.prompt_token_ids, answer.token_ids)])[0]
        found += logprobs[span.first_token : end]
    return found


def assert_served_by(state: StateDir, pairs: list[tuple[Completion, Answer]]) -> None:
    """The logged log-probs are those of the named weights: token by token, and k3 ≤ 1e-3."""
    for completion, answer in pairs:
        logged, ours = torch.tensor(answer.logprobs), torch.tensor(recompute(state, completion, answer))
        assert torch.allclose(logged, ours, atol=2e-3), (answer.spans, (logged - ours).abs().max())
        assert k3(logged, ours).mean() <= 1e-3


def test_feedback_is_acknowledged_before_the_engine_is_there(stack: Stack) -> None:
    status, reply = stack.post("/v1/feedback", {"thumb": {"answer": {"completion_id": "chatcmpl-never"}, "up": True}})
    assert (status, set(reply["position"])) == (200, {"local"})
    status, reply = stack.post("/v1/chat/completions", {"messages": [{"role": "user", "content": PROMPTS[0]}]})
    assert status in (200, 503)
    stack.wait(stack.ready, "the engine serves")


def test_an_answer_is_logged_as_it_was_sampled(stack: Stack) -> None:
    reply = chat(stack, PROMPTS[1], n=2)
    assert reply["system_fingerprint"] == "policy-000000"
    chunks = stack.stream({"messages": [{"role": "user", "content": PROMPTS[2]}], "max_tokens": 24})
    streamed = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    by_id = {completion.completion_id: completion for completion in completions(stack.state)}
    logged = by_id[reply["rlhf"]["completion_id"]]
    assert [answer.text for answer in logged.answers] == [c["message"]["content"] for c in reply["choices"]]
    stream = by_id[chunks[-1]["rlhf"]["completion_id"]]
    assert stream.answers[0].text == streamed
    assert_served_by(stack.state, [(c, answer) for c in (logged, stream) for answer in c.answers])


def test_votes_become_a_new_version_that_answers_within_the_same_streams(stack: Stack, acknowledged: set[str]) -> None:
    before = served(stack)
    over = threading.Event()

    def keep_streaming() -> None:
        body = {"messages": [{"role": "user", "content": PROMPTS[3]}], "max_tokens": LONG, "ignore_eos": True}
        while not over.is_set():
            assert stack.stream(body)

    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(keep_streaming) for _ in range(STREAMS)]
        try:
            after = before
            for _ in range(SWAPS_TRIED):  # a swap may fall between two answers: then another one is needed
                last = after
                vote(stack, acknowledged)
                stack.wait(lambda: live(stack) > last, "a version is promoted")  # noqa: B023
                after = stack.wait(lambda: (now := served(stack)) > last and now, "it answers")  # noqa: B023
                if any(span.first_token > 0 for c in completions(stack.state) for a in c.answers for span in a.spans):
                    break
        finally:
            over.set()
        for stream in streams:
            stream.result()
    mine = [(c, answer) for c in completions(stack.state) for answer in c.answers if answer.spans]
    crossed = [pair for pair in mine if len(pair[1].spans) > 1]
    assert crossed, "no answer was in flight across the swap"
    assert any(span.first_token > 0 for _, answer in crossed for span in answer.spans[1:])
    assert_served_by(stack.state, crossed[:4])
    assert_served_by(stack.state, [pair for pair in mine if pair[1].spans[0].policy_version == after][-2:])


def test_one_vote_is_one_trace_from_the_click_to_what_learned_from_it(stack: Stack, collector: Receiver) -> None:
    """Whose cycle's trace, which it links to, ends with the swap in the engine that serves."""
    after = served(stack)
    named = {"rlhf.policy_version": after}

    def of(name: str) -> list[Received]:
        return [span for span in collector.spans if span.name == name and span.attributes.items() >= named.items()]

    stack.wait(lambda: of("publish") and of("swap"), "the spans of its publication and its swap come")
    published, swap = of("publish")[0], of("swap")[0]
    way = {span.name: span.service for span in collector.spans if span.trace == published.trace}
    assert way == {
        "POST /v1/feedback": "rlhf-online-chat",
        "append": "rlhf-online-chat",
        "learn": "rlhf-online-trainer",
        "publish": "rlhf-online-trainer",
    }
    assert [trace for trace, _ in published.links] == [swap.trace]
    cycle = {span.name for span in collector.spans if span.trace == swap.trace and span.service.endswith("trainer")}
    assert cycle >= {"cycle", "reward", "rollouts", "policy", "gate"}


def test_a_killed_trainer_goes_on_from_its_checkpoint(stack: Stack, acknowledged: set[str]) -> None:
    before = live(stack)
    vote(stack, acknowledged, 20)
    os.kill(pid(stack, "trainer"), signal.SIGKILL)
    vote(stack, acknowledged, 20)
    stack.wait(lambda: live(stack) > before, "a version by the restarted trainer")
    stack.wait(lambda: served(stack) > before, "it answers")

    ours = frozenset(acknowledged)

    def taken_in() -> bool:
        """Whether every vote of ours was. Fewer than a cycle needs wait for others, which are then given."""
        if count_votes(stack.state, LOG, ours).pending == 0:
            return True
        vote(stack, acknowledged, CYCLE_VOTES)
        return False

    stack.wait(taken_in, "every vote has been taken in")
    counts = count_votes(stack.state, LOG, ours)
    assert counts.trained_twice == 0
    assert counts.held_out > 0
    assert (counts.pending, counts.orphaned, counts.dead_lettered) == (0, 0, 0)
    assert counts.trained + counts.held_out == len(ours)
    assert audit(stack.state.root, acknowledged).problems == []


def test_a_killed_engine_comes_back_with_the_last_good_version(stack: Stack, acknowledged: set[str]) -> None:
    version = served(stack)
    reply = chat(stack, PROMPTS[4])
    os.kill(pid(stack, "engine"), signal.SIGKILL)
    body = {"thumb": {"answer": {"completion_id": reply["rlhf"]["completion_id"]}, "up": True}}
    status, answer = stack.post("/v1/feedback", body)
    assert status == 200, "feedback is accepted while the engine is away"
    acknowledged.add(answer["event_id"])
    stack.wait(lambda: not stack.ready(), "the loss is noticed", timeout=60)
    stack.wait(stack.ready, "the engine serves again")
    assert served(stack) >= version


def test_what_the_engine_was_given_is_what_is_logged_and_learned(stack: Stack, tmp_path: Path) -> None:
    """vLLM's own rendering, of every conversation, is in the log, and is what the stand-in of other tests renders."""
    write_tiny_model(tmp_path / "model", weights_seed=None)
    tokenizer = ChatTokenizer(tmp_path / "model")
    given: dict[str, tuple[int, ...]] = {}
    for name, messages in CONVERSATIONS.items():
        body = {"messages": messages, "max_tokens": 4, "return_token_ids": True}
        status, reply = stack.post("/v1/chat/completions", body)
        assert status == 200, (name, reply)
        given[reply["id"]] = tuple(reply["prompt_token_ids"])
        assert given[reply["id"]] == tokenizer.prompt_ids(messages), name
        correction = {"answer": {"completion_id": reply["id"]}, "text": "zinc iron"}
        assert stack.post("/v1/feedback", {"user": "eve", "correction": correction})[0] == 200
    logged = {completion.completion_id: completion.prompt_token_ids for completion in completions(stack.state)}
    assert {completion_id: logged[completion_id] for completion_id in given} == given
    source = open_source(LOG, stack.state.log)
    try:
        shown = corrections(source, held_out=0.0).demonstrations
    finally:
        source.close()
    pairs = to_pairs(shown, tokenizer, 128, len(world.VOCABULARY)).pairs
    assert [tuple(prompt) for prompt, _ in pairs] == list(given.values())


def test_ctrl_c_ends_everything(stack: Stack) -> None:
    group = descendants(stack.process.pid)
    assert len(group) >= 4
    assert stack.stop() == 0
    assert [pid for pid in group if alive(pid)] == []
