"""What people are asked about next: their own prompts or the operator's, and never what somebody else asked."""

# pyright: reportAttributeAccessIssue=false
# (the generated stubs are typed for synchronous channels)

from pathlib import Path

import grpc
import pytest

from rlhf_online.errors import ConfigError
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.proto.rlhf.v1 import comparisons_pb2, comparisons_pb2_grpc
from services.chat.comparisons.questions import read_prompts
from services.chat.transport.grpc_values import values_of
from tests.support.chat_service import Service, running


async def asked(service: Service, user: str) -> set[str]:
    """What they are asked about in twenty tries; nothing if there is nothing to ask."""
    found = set()
    for _ in range(20):
        status, reply = await service.get(f"/v1/comparisons/next?user={user}")
        if status == 404:
            assert reply["error"]["code"] == "nothing_to_compare"
            return set()
        found.add(reply["messages"][-1]["content"])
    return found


async def over_grpc(service: Service, user: str) -> list[dict[str, object]]:
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        stub = comparisons_pb2_grpc.ComparisonServiceStub(channel)
        return values_of(await stub.NextComparison(comparisons_pb2.NextComparisonRequest(user=user)))["messages"]


async def test_each_person_is_asked_about_what_they_asked(tmp_path: Path) -> None:
    with LocalLog(tmp_path / "state" / "log") as log:
        async with running(tmp_path, log=log) as service:
            for user, text in (("ann", "hers"), ("ann", "hers too"), ("bob", "his"), ("", "nobody's")):
                message = {"role": "user", "content": text, "name": "x"}
                assert (await service.ask(user=user, messages=[message]))[0] == 200
            assert await asked(service, "ann") == {"hers", "hers too"}
            assert await asked(service, "bob") == {"his"}
            assert await asked(service, "carol") == await asked(service, "") == set()
            assert await over_grpc(service, "bob") == [{"role": "user", "content": "his", "name": "x"}]
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await over_grpc(service, "carol")
            assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_list_is_asked_about_instead(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "listed"}]}\n' * 2)
    async with running(tmp_path, comparison_prompts=path) as service:
        await service.ask(user="ann")
        assert await asked(service, "ann") == await asked(service, "") == {"listed"}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "line 2: unexpected"),
        ('{"prompt": "hi"}', 'line 2: expected {"messages"'),
        ('{"messages": []}', "line 2: messages: expected at least one"),
        ('{"messages": [{"role": "king", "content": "x"}]}', "line 2: messages.0..role"),
    ],
)
def test_a_list_that_is_none_is_named_with_its_line(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "x"}]}\n' + line)
    with pytest.raises(ConfigError, match=f"comparison_prompts: .*prompts.jsonl, {why}"):
        read_prompts(path)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_prompts(tmp_path / "none")
