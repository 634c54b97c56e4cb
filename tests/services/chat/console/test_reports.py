"""What the gate found of a version, as operators are told: by HTTP and by the command line."""

import asyncio
from pathlib import Path

import pytest

from rlhf_online.cli import main
from rlhf_online.versions.reports import Reports, report_key
from tests.services.chat.console.test_console import operate
from tests.support import api_keys
from tests.support.chat_service import running
from tests.support.gate_report import brand_report


async def test_an_operator_reads_the_report_and_others_do_not(tmp_path: Path) -> None:
    api_keys.write(tmp_path / "state")
    async with running(tmp_path) as service:
        version = service.version()
        path = f"/v1/versions/{version}/report"
        assert (await operate(service, "GET", path))[1]["error"]["code"] == "report_not_found"
        Reports(service.registry.store).write(version, brand_report())
        status, found = await operate(service, "GET", path)
        assert status == 200 and found["version"] == version and not found["passed"] and found["samples"] == 20
        [traits] = [check for check in found["checks"] if check["name"] == "traits"]
        assert "pays for the trait brand: +2.00 ± 0.25" in traits["objections"][0]
        shown = found["examples"][traits["examples"][0]]
        assert shown == {
            "prompt": "name one fruit",
            "live": "a fig",
            "candidate": "mango <b>now</b>",
            "score": 1.0,
            "live_score": 0.0,
        }  # fmt: skip  (and not whose it is)
        assert (await operate(service, "GET", "/v1/versions/policy-000999/report"))[0] == 404
        assert (await operate(service, "GET", "/v1/versions/..%2F..%2Fstate/report"))[0] == 404
        headers = {"Authorization": f"Bearer {api_keys.TOKENS['read']}"}
        async with service.session.get(service.url + path, headers=headers) as response:
            assert response.status == 403
        store, key = service.registry.store, report_key(version)
        store.replace(key, "{", expected=store.read(key))
        status, refused = await operate(service, "GET", path)
        assert status == 503 and refused["error"]["code"] == "report_unavailable"


async def test_the_command_line_shows_it_from_the_folder_and_from_the_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(tmp_path) as service:
        version = service.version()
        report = brand_report()
        report["examples"][0]["prompt"] = "\x1b[2Jname one fruit"  # whoever asked that wants to steer a terminal
        Reports(service.registry.store).write(version, report)
        state = ["--state", str(service.state.root)]
        capsys.readouterr()  # what the service logged as it started
        assert main(["versions", "report", version, *state]) == 0
        said = capsys.readouterr().out
        assert await asyncio.to_thread(main, ["versions", "report", version, "--url", service.url, *state]) == 0
        assert capsys.readouterr().out.endswith(said)  # after what the service logs
        lines = said.splitlines()
        assert "OBJECTS  traits" in lines and "passed   kl" in lines
        assert any("pays for the trait brand" in line for line in lines)
        assert "  candidate (score 1.00): mango <b>now</b>" in lines
        assert "\x1b" not in said and "[2Jname one fruit" in said
        assert main(["versions", "report", version, "--json", *state]) == 0
        assert '"passed": false' in capsys.readouterr().out
        assert main(["versions", "report", service.version(), *state]) == 2
        assert "has no report" in capsys.readouterr().err
        assert main(["versions", "report", "policy-000999", *state]) == 2
        assert main(["versions", "report", "../x", *state]) == 2
