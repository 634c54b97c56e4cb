"""TLS on chat's own ports: whatever asks them follows, and the whole way is tried with the real service."""

import asyncio
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlhf_online import config
from rlhf_online.config import ChatSettings
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.training.settings import TrainerSettings
from tests.support.certificates import Authority
from tests.support.chart import CHART, LEAST, Object, Rendered, merged, refusal, render
from tests.support.chat_service import running

SECURE: Object = {
    "chat": {"tls": {"existingSecret": "chat-tls", "caConfigMap": "chat-ca"}},
    "hosts": ["chat.example.org"],
    "ingress": {"enabled": True, "annotations": {"a": "b"}},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]},
    "monitoring": {"podMonitors": {"enabled": True}},
}
HOST = "r-rlhf-online-chat.chat.svc"


@pytest.fixture(scope="module")
def secure() -> Rendered:
    return render(merged(LEAST, SECURE))


def test_probes_and_services_say_that_it_is_tls(secure: Rendered) -> None:
    (chat,) = secure.one("StatefulSet", "-chat")["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert chat[probe]["httpGet"]["scheme"] == "HTTPS"
    ports = [port for name in ("-chat", "-votes") for port in secure.one("Service", name)["spec"]["ports"]]
    assert {port["appProtocol"] for port in ports} == {"https"}


def test_the_services_find_their_files(secure: Rendered, tmp_path: Path) -> None:
    for service, kind, names in (
        ("chat", ChatSettings, ("tls.cert_file", "tls.key_file")),
        ("trainer", TrainerSettings, ("chat_ca_file",)),
    ):
        (file := tmp_path / f"{service}.toml").write_text(secure.file(service))
        settings = config.load(kind, file)
        pod = secure.one("StatefulSet", f"-{service}")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        there = files(pod, container)
        for name in names:
            value: Any = settings
            for part in name.split("."):
                value = getattr(value, part)
            assert value in there, (value, there)
    assert secure.settings("trainer")["chat_url"] == f"https://{HOST}:8000"


def files(pod: Object, container: Object) -> set[str]:
    """What its volumes of Secrets and ConfigMaps put where, of those that name their keys."""
    kept = {each["name"]: each.get("secret") or each.get("configMap") or {} for each in pod["volumes"]}
    return {
        f"{mount['mountPath']}/{item['path']}"
        for mount in container["volumeMounts"]
        for item in kept.get(mount["name"], {}).get("items", [])
    }


def test_prometheus_and_both_ways_in_speak_tls_with_the_pods_and_look_at_the_name(secure: Rendered) -> None:
    for monitor in secure.of("PodMonitor"):
        for end in monitor["spec"]["podMetricsEndpoints"]:
            if end["port"] == "http":
                assert end["scheme"] == "https" and end["tlsConfig"]["serverName"] == HOST
                assert end["tlsConfig"]["ca"]["configMap"] == {"name": "chat-ca", "key": "ca.crt"}
            else:
                assert "scheme" not in end
    annotations = secure.of("Ingress")[0]["metadata"]["annotations"]
    assert annotations == {"a": "b", "nginx.ingress.kubernetes.io/backend-protocol": "HTTPS"}
    (policy,) = secure.of("BackendTLSPolicy")
    refs = {ref["name"] for rule in secure.of("HTTPRoute")[0]["spec"]["rules"] for ref in rule["backendRefs"]}
    assert {each["name"] for each in policy["spec"]["targetRefs"]} == refs
    assert policy["spec"]["validation"]["hostname"] == HOST
    assert policy["spec"]["validation"]["caCertificateRefs"][0]["name"] == "chat-ca"


def test_a_certificate_that_everybody_knows_needs_no_authority() -> None:
    objects = render(merged(LEAST, SECURE, {"chat": {"tls": {"caConfigMap": ""}}}))
    assert objects.of("BackendTLSPolicy")[0]["spec"]["validation"]["wellKnownCACertificates"] == "System"
    assert "chat_ca_file" not in objects.settings("trainer")
    assert objects.settings("trainer")["chat_url"].startswith("https:")


def test_in_the_clear_nothing_speaks_of_it() -> None:
    clear = render(merged(LEAST, SECURE, {"chat": {"tls": {"existingSecret": "", "caConfigMap": ""}}}))
    assert "tls" not in clear.settings("chat") and not clear.of("BackendTLSPolicy")
    assert "chat.tls.existingSecret is empty" in refusal(merged(LEAST, {"chat": {"tls": {"caConfigMap": "a"}}}))


async def test_helm_tests_script_asks_over_tls_as_its_pod_is_told(secure: Rendered, tmp_path: Path) -> None:
    (pod,) = secure.of("Pod")
    (container,) = pod["spec"]["containers"]
    told = {each["name"]: each.get("value") for each in container["env"]}
    assert told["CHAT_URL"] == f"https://{HOST}:8000"
    assert told["SSL_CERT_FILE"] in files(pod["spec"], container)
    ours = Authority(tmp_path).issue("chat")
    tls = {"cert_file": str(ours.cert), "key_file": str(ours.key)}
    with closing(LocalLog(tmp_path / "state" / "log")) as log:
        async with running(tmp_path, log=log, tls=tls) as service:
            for authority, said in (
                (ours.authority, "they are "),
                (Authority(tmp_path, "other").file, "VERIFY_FAILED"),
            ):
                given = {
                    "CHAT_URL": service.url.replace("http:", "https:"),
                    "SSL_CERT_FILE": str(authority),
                    "RLHF_OPERATOR_TOKEN": service.state.operator_token(),
                }
                script = [sys.executable, "-I", str(CHART / "files" / "vote.py")]
                limits = {"VOTES": "1", "UNTIL": "live", "TIMEOUT_S": "0"}
                environment = os.environ | given | limits
                done = await asyncio.to_thread(subprocess.run, script, env=environment, capture_output=True, text=True)
                assert done.returncode == 1 and said in done.stderr, done.stderr
