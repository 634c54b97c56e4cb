"""One vote is one trace from its click to the version that learned from it, linked to the cycle's own."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_online import tracing
from rlhf_online.events import Envelope, Feedback
from rlhf_online.training.loop import Trainer
from tests.support.crash import Crash
from tests.support.otlp import Received, Receiver, receiver
from tests.support.trainer_world import World, world

PARENT = "00f067aa0ba902b7"


class TracedWorld:
    """Every second vote was clicked in a trace that is kept: `traces`, by event id."""

    def __init__(self, made: World) -> None:
        self.made = made
        self.traces: dict[str, str] = {}
        append = made.append
        setattr(made, "append", lambda envelope: append(self._traced(envelope)))  # noqa: B010

    def _traced(self, envelope: Envelope) -> Envelope:
        if isinstance(envelope.event, Feedback):
            number = len(self.made.accepted) + 1
            sampled = number % 2
            trace = f"{number:032x}"
            if sampled:
                self.traces[envelope.event_id] = trace
            envelope = replace(envelope, traceparent=f"00-{trace}-{PARENT}-{sampled:02}")
        return envelope


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[TracedWorld]:
    with world(tmp_path) as made:
        yield TracedWorld(made)


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiver() as found:
        tracing.configure("trainer", found.url)
        yield found
        tracing.close()


def run(traced: TracedWorld) -> None:
    with traced.made.trainer() as trainer:
        assert trainer.run_once()


def named(spans: list[Received], name: str) -> list[Received]:
    return [span for span in spans if span.name == name]


def test_from_the_log_to_the_version(traced: TracedWorld, collector: Receiver) -> None:
    traced.made.chat(20)
    run(traced)
    tracing.close()
    spans = collector.spans
    [cycle] = named(spans, "cycle")
    assert (cycle.parent, cycle.service) == ("", "rlhf-online-trainer")
    assert sorted(cycle.links) == sorted((trace, PARENT) for trace in traced.traces.values())
    policy, reward = (traced.made.registry.live(kind) for kind in ("policy", "reward"))
    assert cycle.attributes == {"rlhf.outcome": "promoted", "rlhf.policy_version": policy}

    phases = {span.name: span for span in spans if span.parent == cycle.span}
    assert phases.keys() >= {"reward", "rollouts", "policy", "gate", "publishing"}
    assert all(span.trace == cycle.trace for span in phases.values())

    for name, told in (("learn", {"rlhf.reward_version": reward}), ("publish", cycle.attributes)):
        found = named(spans, name)
        assert {span.trace for span in found} == {*traced.traces.values()} and len(found) == len(traced.traces)
        for span in found:
            assert (span.parent, span.links, span.attributes) == (PARENT, ((cycle.trace, cycle.span),), told)
    learn, publish = named(spans, "learn")[0], named(spans, "publish")[0]
    assert cycle.began_ns <= learn.began_ns <= learn.ended_ns <= publish.began_ns <= publish.ended_ns <= cycle.ended_ns

    of_cycle = f"00-{cycle.trace}-{cycle.span}-01"
    for version in (policy, reward):
        assert version is not None and traced.made.registry.manifest(version).traceparent == of_cycle


def test_the_reward_service_scores_in_the_cycles_trace(traced: TracedWorld, collector: Receiver) -> None:
    traced.made.chat(20)
    run(traced)
    tracing.close()
    [cycle] = named(collector.spans, "cycle")
    scored = named(collector.spans, "rlhf.v1.RewardService/Score")
    assert scored and {(span.trace, span.kind) for span in scored} == {(cycle.trace, "server")}


def test_a_cycle_that_is_cut_short_goes_on_in_its_trace(
    traced: TracedWorld, collector: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: Trainer) -> None:
        raise Crash

    traced.made.chat(20)
    with monkeypatch.context() as broken, pytest.raises(Crash):
        broken.setattr(Trainer, "improve_policy", crash)
        run(traced)
    run(traced)
    tracing.close()
    begun, rest = named(collector.spans, "cycle")
    assert begun.failed and begun.attributes["error.type"] == "Crash" and not rest.failed
    assert (rest.trace, rest.parent) == (begun.trace, begun.span)
    live = traced.made.registry.live("policy")
    assert live is not None and traced.made.registry.manifest(live).traceparent.split("-")[1] == begun.trace


def test_without_a_receiver_there_are_no_traces_and_versions_name_none(traced: TracedWorld) -> None:
    traced.made.chat(20)
    run(traced)
    live = traced.made.registry.live("policy")
    assert live is not None and traced.made.registry.manifest(live).traceparent == ""
