"""Simulated traffic against a fake API: what is asked, what is counted, what happens when requests fail."""

import asyncio

import pytest

from rlhf_online.simulation import client, world
from rlhf_online.simulation.client import ChatClient, RequestCounts, RequestFailed
from rlhf_online.simulation.people import population
from rlhf_online.simulation.traffic import Pacer, Records, TrafficGenerator, measure
from tests.support.fake_api import FakeApi, serving
from tests.support.waiting import eventually


@pytest.fixture
def records():
    return Records()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client, "FEEDBACK_PAUSE_S", 0.0)
    monkeypatch.setattr("rlhf_online.simulation.traffic.AFTER_FAILURE_S", 0.0)


def talk_to(api, records):
    return ChatClient(api.url, records.traffic, max_tokens=16)


async def run_traffic(api, records, enough, *, seed=0):
    async with talk_to(api, records) as chat:
        traffic = TrafficGenerator(chat, population(6, seed=seed), records, seed=seed, rate=5000.0, concurrency=4)
        stop = asyncio.Event()
        running = asyncio.create_task(traffic.run(stop))
        await eventually(enough)
        stop.set()
        await running


async def test_people_ask_training_prompts_only_and_vote_on_what_they_got(records):
    async with serving(FakeApi()) as api:
        await run_traffic(api, records, lambda: records.rankings >= 60 and records.thumbs >= 3)
    training = {prompt.text for prompt in world.training_prompts()}
    assert {chat["messages"][0]["content"] for chat in api.chats} <= training
    assert {chat["n"] for chat in api.chats} == {1, 4}
    assert all(chat["temperature"] == 1.0 and chat["max_tokens"] == 16 for chat in api.chats)
    assert records.traffic.requests == len(api.chats) + len(api.votes)
    assert records.traffic.failed_requests == 0
    assert len(records.acks) == len(api.votes) == records.rankings + records.thumbs
    rankings = [vote["ranking"]["tiers"] for vote in api.votes if "ranking" in vote]
    assert all(sorted(tier[0]["index"] for tier in tiers) == [0, 1, 2, 3] for tiers in rankings)
    assert all(len({tier[0]["completion_id"] for tier in tiers}) == 1 for tiers in rankings)


async def test_answers_are_counted_by_version(records):
    async with serving(FakeApi(answers=("sure yes",))) as api:
        await run_traffic(api, records, lambda: records.answers >= 40)
        api.version = "policy-000001"
        await run_traffic(api, records, lambda: "policy-000001" in records.by_version)
    assert set(records.by_version) == set(records.first_answer) == {"policy-000000", "policy-000001"}
    assert records.first_answer["policy-000000"] < records.first_answer["policy-000001"]
    assert sum(rewards.n for rewards in records.by_version.values()) == records.answers


async def test_feedback_is_sent_again_with_the_same_key(records):
    async with serving(FakeApi(fail={"/v1/feedback": [503, 0, 500]})) as api:
        async with talk_to(api, records) as chat:
            ack = await chat.feedback({"thumb": {"answer": {"completion_id": "c", "index": 0}, "up": True}})
    assert ack.position == {"local": 4}
    assert len({vote["idempotency_key"] for vote in api.votes}) == 1
    assert (records.traffic.requests, records.traffic.feedback_retries) == (1, 3)
    assert records.traffic.failed_requests == 0


async def test_feedback_that_is_refused_is_not_sent_again(records):
    async with serving(FakeApi(fail={"/v1/feedback": [422]})) as api, talk_to(api, records) as chat:
        with pytest.raises(RequestFailed):
            await chat.feedback({"thumb": {}})
        assert len(api.votes) == 1
    assert records.traffic.failures == {"feedback 422": 1}


@pytest.mark.parametrize(("status", "kind"), [(503, "chat 503"), (0, "chat ServerDisconnectedError")])
async def test_a_chat_request_without_its_answer_is_counted(records, status, kind):
    async with serving(FakeApi(fail={"/v1/chat/completions": [status]})) as api, talk_to(api, records) as chat:
        with pytest.raises(RequestFailed):
            await chat.chat("is fig a fruit ?", n=2)
        assert len(await chat.chat("is fig a fruit ?", n=2)) == 2
    assert records.traffic == RequestCounts(requests=2, failed_requests=1, failures=records.traffic.failures)
    assert records.traffic.failures == {kind: 1}


async def test_while_chat_fails_people_vote_on_what_they_remember(records):
    async with serving(FakeApi()) as api:
        async with talk_to(api, records) as chat:
            traffic = TrafficGenerator(chat, population(6, seed=0), records, seed=0, rate=5000.0, concurrency=2)
            stop = asyncio.Event()
            running = asyncio.create_task(traffic.run(stop))
            await eventually(lambda: records.rankings >= 10)
            api.fail["/v1/chat/completions"] = [503] * 5
            await eventually(lambda: records.traffic.failed_requests >= 5 and records.late_acks)
            stop.set()
            await running
    assert 1 <= records.late_acks <= 5
    assert records.traffic.failures == {"chat 503": 5}


async def test_a_stream_is_read_to_its_end(records):
    async with serving(FakeApi(answers=("sure yes",))) as api, talk_to(api, records) as chat:
        reply = await chat.stream("is fig a fruit ?")
        assert (reply.text, reply.finished, reply.versions) == ("sure yes", True, ("policy-000000",))
        api.broken_stream = True
        with pytest.raises(RequestFailed):
            await chat.stream("is fig a fruit ?")
    assert records.traffic.failures == {"chat ValueError": 1}


async def test_measuring_averages_the_true_reward_and_stores_nothing(records):
    fig, wolf = world.IsPrompt(item="fig", category="fruit"), world.IsPrompt(item="wolf", category="fruit")
    async with serving(FakeApi(answers=("yes",))) as api, talk_to(api, records) as chat:
        measured = await measure(chat, [fig, wolf], answers=3, records=records)
    assert measured.mean == pytest.approx((1.0 - 1.0) / 2)
    assert measured.stderr == pytest.approx(1.0)  # of two prompts' means, +1 and −1
    assert measured.n == 6
    assert [sample.answer for sample in measured.samples] == ["yes", "yes"]
    assert all(chat["store"] is False for chat in api.chats)
    assert "policy-000000" in records.first_answer
    assert not records.by_version


async def test_the_pacer_spaces_its_tickets():
    loop = asyncio.get_running_loop()
    pacer, began = Pacer(200.0), loop.time()
    for _ in range(5):
        await pacer.wait()
    assert loop.time() - began >= 4 / 200 * 0.9
