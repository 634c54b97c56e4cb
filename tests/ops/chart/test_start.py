"""A chat service started from the file that the chart renders, as in a pod whose engine and Kafka are not there yet."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx

from rlhf_online import keys
from tests.support.chart import render
from tests.support.waiting import until


def test_it_lives_takes_votes_and_is_not_ready(tmp_path: Path) -> None:
    file, ready, kept = tmp_path / "chat.toml", tmp_path / "ready.json", tmp_path / "keys.json"
    nowhere = {"auth": {"existingSecret": "secrets"}, "kafka": {"brokers": ["127.0.0.1:1"]}}
    file.write_text(render(nowhere, "cpu").file("chat"))
    key, token = keys.make("me", ["feedback"])
    keys.add(kept, key)
    here = {"STATE_DIR": tmp_path / "state", "KEYS_FILE": kept, "VERSIONS__URL": f"file:{tmp_path / 'versions'}"}
    ports = {"READY_FILE": ready, "HTTP_PORT": 0, "GRPC_PORT": 0}
    variables = {f"RLHF_CHAT__{name}": str(value) for name, value in (here | ports).items()}
    secrets = {"RLHF_OPERATOR_TOKEN": "o" * 32, "RLHF_PERSON_SALT": "s" * 32}
    process = subprocess.Popen(
        [sys.executable, "-m", "services.chat", "--config", file],
        env=os.environ | variables | secrets,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: ready.exists() or process.poll() is not None, 60, lambda: "open ports")
        assert process.poll() is None, process.communicate()[1]
        url = f"http://127.0.0.1:{json.loads(ready.read_text())['http']}"
        probes = [httpx.get(url + path, timeout=30).status_code for path in ("/healthz", "/readyz")]
        assert probes == [200, 503]
        vote = {"thumb": {"answer": {"completion_id": "an-answer"}, "up": True}}
        reply = httpx.post(f"{url}/v1/feedback", json=vote, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        assert reply.status_code == 200, reply.text
        process.terminate()
        _, lines = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert {json.loads(line)["service"] for line in lines.splitlines()} <= {"chat", "forwarder"}
    assert not [secret for secret in (*secrets.values(), token) if secret in lines]
