"""The canary as operators see and end it, over HTTP and by the command line."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.canary import record
from rlhf_online.canary.decision import evidence
from rlhf_online.canary.tally import Tally
from rlhf_online.cli import main
from rlhf_online.cli.canary import lines
from rlhf_online.versions import open_registry
from rlhf_online.versions.registry import Registry
from tests.support.chat_service import Service, running

EMPTY = {"version": "", "live": "", "share": 0.0, "steps": [], "step": 0, "began_ms": 0, "since_ms": 0, "reason": ""}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(tmp_path) as service:
        yield service


def begun(registry: Registry, live: str, candidate: str) -> str:
    found = record.begin(registry, candidate, (0.1, 0.5), {"samples": 5})
    assert found is not None and found.live == live
    return candidate


def counted(version: str) -> dict[str, Any]:
    """What the trainer tells of it."""
    tally = Tally(version, "policy-000000")
    tally.people.compare("ann", "a", 1.0)
    tally.people.look()
    tally.guards["empty"].outcomes[0.0] = 4
    return {"canary": {"version": version, **evidence(tally).to_json(), "answers": 4}}


async def test_it_is_told_with_what_the_trainer_has_counted(service: Service) -> None:
    status, told = await service.get("/v1/canary")
    assert status == 200 and told.items() >= EMPTY.items() and told["people"] is None
    version = begun(service.registry, service.version(live=True), service.version())
    service.state.write_status("trainer", counted("policy-000009"))
    _, told = await service.get("/v1/canary")
    assert (told["version"], told["share"], told["people"]) == (version, 0.1, None), "what was counted is another's"
    service.state.write_status("trainer", counted(version))
    _, told = await service.get("/v1/canary")
    assert (told["people"], told["answers"], told["empty_share"], told["slow_share"]) == (1, 4, 0.0, None)
    assert told["better"] == pytest.approx(1.31)
    _, listed = await service.get("/v1/versions")
    assert [row["state"] for row in listed["versions"]] == ["live", "canary"]


async def test_an_operator_promotes_it_or_takes_it_back_and_says_why(service: Service) -> None:
    token = service.state.operator_token()
    for what in ("promote", "abort"):
        assert (await service.post(f"/v1/canary/{what}", {}))[0] == 401
        status, refused = await service.post(f"/v1/canary/{what}", {}, token)
        assert (status, refused["error"]["code"]) == (409, "version_conflict")
    version = begun(service.registry, service.version(live=True), service.version())
    status, told = await service.post("/v1/canary/abort", {"reason": "it swears"}, token)
    assert (status, told["version"]) == (200, "")
    found = service.registry.status(version)
    assert (found.state, found.gate) == ("rejected", {"samples": 5})
    assert found.reason == "taken back by operator: it swears"
    version = begun(service.registry, "policy-000000", service.version())
    assert (await service.post("/v1/canary/promote", {"reasn": ""}, token))[0] == 400
    assert (await service.post("/v1/canary/promote", {}, token))[0] == 200
    assert service.registry.live("policy") == version
    assert service.registry.status(version).reason == "promoted by operator"
    assert service.registry.status(version).by == "operator"


async def test_an_audiences_is_told_and_ended_apart_over_http_and_by_the_command_line(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    token, registry = service.state.operator_token(), service.registry
    everybodys = begun(registry, service.version(live=True), service.version())
    live = service.version(live=True, kind="policy.brief")
    version = begun(registry, live, service.version(kind="policy.brief"))
    service.state.write_status("trainer", {"audience_canaries": {"policy.brief": counted(version)["canary"]}})
    _, told = await service.get("/v1/canary?kind=policy.brief")
    assert (told["version"], told["live"], told["people"]) == (version, live, 1)
    _, told = await service.get("/v1/canary")
    assert (told["version"], told["people"]) == (everybodys, None)
    for kind in ("reward", "policy.Brief", "policy."):
        status, refused = await service.get(f"/v1/canary?kind={kind}")
        assert (status, refused["error"]["message"]) == (400, "kind: expected policy, or policy.NAME of an audience")
    folder = ["--state", str(service.state.root), "--audience", "brief"]
    assert main(["canary", "status", *folder]) == 0
    assert capsys.readouterr().out.startswith(f"{version} answers 10% of the conversations")
    assert (await service.post("/v1/canary/abort", {"kind": "policy.brief", "reason": "it swears"}, token))[0] == 200
    assert registry.status(version).reason == "taken back by operator: it swears"
    assert (await service.post("/v1/canary/promote", {"kind": "policy.brief"}, token))[0] == 409
    version = begun(registry, live, service.version(kind="policy.brief"))
    assert main(["canary", "promote", *folder]) == 0
    assert (registry.live("policy.brief"), registry.status(everybodys).state) == (version, "canary")


async def test_the_command_line_asks_the_service_or_reads_the_folder(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--state", str(service.state.root)]
    assert main(["canary", "status", *folder]) == 0
    assert capsys.readouterr().out == "there is no canary\n"
    assert main(["canary", "abort", *folder]) == 2
    assert "there is no canary" in capsys.readouterr().err
    version = begun(service.registry, service.version(live=True), service.version())
    service.state.write_status("trainer", counted(version))
    _, told = await service.get("/v1/canary")
    assert main(["canary", "status", *folder]) == 0
    assert (
        capsys.readouterr().out.splitlines()
        == lines(told)
        == [
            f"{version} answers 10% of the conversations (10% → 50%); policy-000000 the others",
            "1 people, evidence 1.31 that they prefer it, 0.69 that not; "
            "preference between 0.8% and 100.0%, 50% is none",
            "4 answers at this step; empty 0.0%",
        ]
    )
    assert main(["canary", "abort", "--reason", "it swears", *folder]) == 0
    registry = open_registry(service.state.versions)
    assert registry.status(version).reason == "taken back by the operator (on this machine): it swears"
    version = begun(service.registry, "policy-000000", service.version())
    assert main(["canary", "promote", *folder]) == 0
    assert registry.live("policy") == version
