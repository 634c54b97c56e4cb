"""The service's process as its operators see it: JSON lines, levels that change while it runs, traces that are sent."""

import json
import signal
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from tests.support.chat_process import ChatProcess, chat_process
from tests.support.otlp import receiver
from tests.support.waiting import eventually

TRACE = f"00-{'b' * 32}-{'a' * 16}-01"


def lines(chat: ChatProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in chat.output.read_text().splitlines()]


async def test_lines_levels_and_traces_of_a_running_service(tmp_path: Path) -> None:
    with receiver() as collector:
        settings = {"log_format": "json", "tracing": {"endpoint": collector.url, "sample": 0.0}}
        async with chat_process(tmp_path, **settings) as chat:
            vote = {"thumb": {"answer": {"completion_id": "a"}, "up": True}}
            headers = {"traceparent": TRACE, "x-request-id": "job-7"}
            async with chat.session.post(chat.url + "/v1/feedback", json=vote, headers=headers) as reply:
                assert (reply.status, reply.headers["x-request-id"]) == (200, "job-7")

            path = tmp_path / "chat.toml"
            values = tomllib.loads(path.read_text()) | {"log_level": "warning", "log_levels": {"services": "error"}}
            path.write_text(tomli_w.dumps(values))
            chat.signal(signal.SIGHUP)
            await eventually(lambda: any(line["event"] == "log levels" for line in lines(chat)))

            chat.signal(signal.SIGTERM)
            assert await chat.ended(30) == 0
        spans = {span.name: span for span in collector.spans}
    assert spans.keys() == {"POST /v1/feedback", "append"}, "what waits is sent before the end"
    assert spans["append"].parent == spans["POST /v1/feedback"].span
    said = {line["event"]: line for line in lines(chat)}
    assert said["listening"]["logger"] == "services.chat.service" and said["listening"]["service"] == "chat"
    assert said["log levels"]["log_levels"] == {"services": "error"}
