"""`store: false`: an answer that leaves no trace in the log."""

import orjson
import pytest

from tests.support.chat_service import ASK, Service


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_to_be_stored_is_not_logged(service: Service, stream: bool) -> None:
    body = orjson.dumps({**ASK, "store": False, "stream": stream})
    async with service.session.post(service.url + "/v1/chat/completions", data=body) as response:
        assert response.status == 200
        assert b'"logged":false' in await response.read()
    assert service.sink.completions == []
    assert not await service.metric("rlhf_log_failures_total")


async def test_store_true_is_logged_and_anything_else_refused(service: Service) -> None:
    status, reply = await service.ask(store=True)
    assert (status, reply["rlhf"]["logged"]) == (200, True)
    assert len(service.sink.completions) == 1
    status, reply = await service.ask(store="no")
    assert (status, reply["error"]["param"]) == (400, "store")
