"""The real trainer on versions in a bucket."""

from pathlib import Path

import pytest

from rlhf_online.config import VersionsSettings
from rlhf_online.training import retrier
from rlhf_online.versions import open_registry
from tests.support.object_server import BUCKET, FULL, environment, object_server
from tests.support.trainer_world import world


def test_a_trainer_learns_over_a_bucket_and_waits_while_that_takes_no_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrier, "FIRST_WAIT_S", 0.001)
    versions, waits = VersionsSettings(url=f"s3://{BUCKET}/learned"), list[str]()
    with object_server() as server:
        for name, value in environment(server.port).items():
            monkeypatch.setenv(name, value)

        def waiting(doing: str, error: Exception) -> None:
            waits.append(f"{doing}: {error}")
            if len([wait for wait in waits if "storage is full" in wait]) == 3:
                server.relent()

        with world(tmp_path, versions=versions) as tiny, tiny.trainer() as trainer:
            trainer.parts.retrier.waiting = waiting
            tiny.chat(20)
            server.refuse(FULL, "PUT POST")
            assert trainer.run_once()
            assert len([wait for wait in waits if f"{versions.url}/" in wait and "storage is full" in wait]) == 3
            learned = trainer.progress.policy_version
        elsewhere = open_registry(tmp_path / "another machine", settings=versions)
        assert elsewhere.live("policy") == learned == "policy-000001"
        assert elsewhere.verify(learned).parent == "policy-000000"
        assert [path.name for path in tiny.state.versions.iterdir()] == ["copies"], "no version is anywhere else"
