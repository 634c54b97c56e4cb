"""What is off by default: scaling, ways in, monitoring, a Kafka of one's own, canary pods, more objects."""

import json
from pathlib import Path

import pytest
import yaml

from rlhf_online.config import ChatSettings
from tests.support.chart import CHART, LEAST, Object, Rendered, merged, refusal, render
from tests.support.network_policies import Pod, reaches


def monitored() -> Object:
    kinds = ("podMonitors", "rules", "dashboards")
    return merged(LEAST, {"monitoring": {kind: {"enabled": True} for kind in kinds}})


def test_rules_and_dashboards_are_the_files_but_for_where_runbooks_are() -> None:
    where = "https://example.org/runbooks"
    objects = render(merged(monitored(), {"monitoring": {"rules": {"runbooksUrl": f"{where}/"}}}))
    rules = {path.stem: path.read_text() for path in (CHART / "files/alerts").glob("*.yaml")}
    assert rules.keys() == {each["metadata"]["name"].rpartition("-")[2] for each in objects.of("PrometheusRule")}
    for name, text in rules.items():
        expected = yaml.safe_load(text.replace("docs/runbooks/", f"{where}/"))
        assert objects.one("PrometheusRule", f"-{name}")["spec"] == expected
    dashboards = list((CHART / "files/dashboards").glob("*.json"))
    assert dashboards
    for path in dashboards:
        found = objects.one("ConfigMap", f"-dashboard-{path.stem}")
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        expected = json.loads(path.read_text().replace("docs/runbooks/", f"{where}/"))
        assert json.loads(found["data"][path.name]) == expected


def test_monitors_find_the_ports_that_pods_have_and_label_as_the_dashboards_ask() -> None:
    objects = render(monitored())
    for monitor in objects.of("PodMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        (pod,) = [pod for pod in objects.pods() if selector.items() <= pod["metadata"]["labels"].items()]
        ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert endpoint["port"] in ports
            assert "release" in [each["targetLabel"] for each in endpoint["relabelings"]]
        assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/component"


def test_peoples_content_keys_lie_in_a_bucket_wrapped_by_a_secret_that_chat_and_trainer_have() -> None:
    sealed = {"keystore": {"url": "s3://keys/people", "existingSecret": "people-kek"}}
    kek = {"name": "RLHF_KEYSTORE_KEK", "valueFrom": {"secretKeyRef": {"name": "people-kek", "key": "kek"}}}

    def have_it(objects: Rendered) -> set[str]:
        containers = [each for pod in objects.pods() for each in pod["spec"]["containers"]]
        return {each["name"] for each in containers if kek in each.get("env", [])}

    objects = render(merged(LEAST, sealed))
    assert have_it(objects) == {"chat", "trainer"}
    for service in ("chat", "trainer"):
        assert objects.settings(service)["keystore"] == {"url": "s3://keys/people"}
    assert "keystore" not in objects.settings("reward") and "keystore" not in render().settings("chat")
    assert have_it(render(merged(LEAST, {"keystore": {"url": "s3://keys/people"}}))) == set()
    said = refusal(merged(LEAST, {"keystore": {"existingSecret": "people-kek"}}))
    assert "keystore.existingSecret has no effect without keystore.url" in said


def test_histograms_are_native_as_well_where_that_is_asked_for() -> None:
    asked = {"monitoring": {"podMonitors": {"nativeHistograms": True}}}
    both = ("convertClassicHistogramsToNHCB", "scrapeClassicHistograms")
    for values, expected in ((monitored(), [None, None]), (merged(monitored(), asked), [True, True])):
        monitors = render(values).of("PodMonitor")
        assert [[one["spec"].get(key) for key in both] for one in monitors] == [expected] * 3


@pytest.mark.parametrize("kind", ["keda", "hpa"])
def test_where_load_decides_no_number_of_pods_is_written(kind: str) -> None:
    """An upgrade would set it back."""
    objects = render(merged(LEAST, {"chat": {"autoscaling": {"enabled": True, "kind": kind}}}))
    assert "replicas" not in objects.one("StatefulSet", "-chat")["spec"]
    (scaler,) = objects.of({"keda": "ScaledObject", "hpa": "HorizontalPodAutoscaler"}[kind])
    assert scaler["spec"]["scaleTargetRef"]["name"] == objects.one("StatefulSet", "-chat")["metadata"]["name"]


def test_votes_go_to_pods_that_are_not_ready_too() -> None:
    way = {"hosts": ["chat.example.org"], "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]}}
    objects = render(merged(LEAST, way, {"ingress": {"enabled": True}}))
    votes = objects.one("Service", "-votes")
    assert votes["spec"]["publishNotReadyAddresses"] is True
    paths = objects.of("Ingress")[0]["spec"]["rules"][0]["http"]["paths"]
    by_ingress = {each["path"]: each["backend"]["service"]["name"] for each in paths}
    rules = objects.of("HTTPRoute")[0]["spec"]["rules"]
    by_route = {each["matches"][0]["path"]["value"]: each["backendRefs"][0]["name"] for each in rules}
    name = votes["metadata"]["name"]
    assert by_ingress == by_route == {"/v1/feedback": name, "/": objects.one("Service", "-chat")["metadata"]["name"]}


def test_a_kafka_of_strimzi_is_what_the_services_are_told_of() -> None:
    """By the names that the operator gives: the Service of its listener, the user's Secret, the authority's."""
    objects = render({"auth": {"existingSecret": "secrets"}, "strimzi": {"enabled": True}})
    cluster = objects.of("Kafka")[0]["metadata"]["name"]
    user = objects.of("KafkaUser")[0]["metadata"]["name"]
    for service in ("chat", "trainer"):
        log = objects.settings(service)["log"]
        assert log["url"] == f"kafka://{cluster}-kafka-bootstrap:9093"
        assert (log["kafka"]["username"], log["kafka"]["mechanism"], log["kafka"]["tls"]) == (
            user,
            "SCRAM-SHA-512",
            True,
        )
    for pod in objects.pods():
        secrets = {each["name"]: each["secret"]["secretName"] for each in pod["spec"]["volumes"] if "secret" in each}
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] in ("chat", "trainer", "topics"):
            assert secrets["kafka-password"] == user
            assert secrets["kafka-ca"] == f"{cluster}-cluster-ca-cert"
    hooks = objects.one("Job", "-topics")["metadata"]["annotations"]["helm.sh/hook"]
    assert hooks == "post-install,post-upgrade"  # before, there is no Kafka


def test_canary_pods_serve_people_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = render(merged(LEAST, {"tuning": "full", "chat": {"canaryReplicas": 1, "replicas": 9}}))
    stable, canary = (objects.one("StatefulSet", name) for name in ("-chat", "-chat-canary"))
    assert (stable["spec"]["replicas"], canary["spec"]["replicas"]) == (9, 1)
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in (stable, canary)]
    public = objects.one("Service", "-chat")["spec"]["selector"]
    assert all(public.items() <= each.items() for each in labels)
    assert not stable["spec"]["selector"]["matchLabels"].items() <= labels[1].items()
    env = {each["name"]: each.get("value") for each in canary["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["RLHF_CHAT__SWAP__CANARY"] == "true"
    assert ChatSettings.model_fields["swap"].default.canary is False


def test_pods_that_come_and_go_run_where_chat_may_and_not_as_it_is_spread() -> None:
    """Else a Job would wait for a node without a chat pod, and the upgrade for the Job."""
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}
    where = {"nodeSelector": {"pool": "gpu"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    spread = {"topologySpreadConstraints": [{**apart, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    objects = render(merged(LEAST, {"chat": {**where, **spread, "affinity": affinity, "runtimeClassName": "nvidia"}}))
    job = objects.one("Job", "-topics")["spec"]
    for pod in (job["template"]["spec"], objects.of("Pod")[0]["spec"]):
        assert where.items() <= pod.items()
        assert not {"affinity", "runtimeClassName"} & pod.keys()
        assert {each["whenUnsatisfiable"] for each in pod["topologySpreadConstraints"]} == {"ScheduleAnyway"}
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # Kubernetes deletes the pod of a Job that gave up, else


@pytest.mark.parametrize("secret", ["", "bucket"])
def test_credentials_of_the_cloud_can_be_asked_for_where_there_is_no_secret(secret: str) -> None:
    """From the node's own addresses and, whatever ports the bucket has, by https (STS)."""
    store = {"versions": {"url": "s3://b", "existingSecret": secret}, "networkPolicies": {"storePorts": [9000]}}
    objects = render(merged(LEAST, store))
    for component in ("chat", "reward", "trainer"):
        rules = objects.one("NetworkPolicy", f"-{component}")["spec"]["egress"]
        (bucket,) = [rule for rule in rules if {"port": 9000} in rule["ports"]]
        blocks = [peer["ipBlock"]["cidr"] for rule in rules for peer in rule.get("to", ()) if "ipBlock" in peer]
        assert ("169.254.0.0/16" in blocks) is not bool(secret)
        if component != "trainer":  # which reaches the API server by https
            assert ({"port": 443} in bucket["ports"]) is not bool(secret)
    assert "ipBlock" not in json.dumps(objects.one("NetworkPolicy", "-test"))


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://otel:4318", 4318), ("https://otel/v1", 443), ("http://otel", 80), ("https://[fd00::1]:4318/x", 4318)],
)
def test_spans_reach_the_port_of_their_address(endpoint: str, port: int) -> None:
    objects = render(merged(LEAST, {"tracing": {"endpoint": endpoint}}))
    rules = objects.one("NetworkPolicy", "-reward")["spec"]["egress"]
    assert [rule["ports"] for rule in rules[1:]] == [[{"port": port}]]


def test_names_are_resolved_on_openshift_too() -> None:
    """Policies are held against the port of the pod: of its DNS 5353."""
    for policy in render().of("NetworkPolicy"):
        for rule in policy["spec"].get("egress", ())[:1]:
            wanted = [(port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")]
            assert [(each["port"], each["protocol"]) for each in rule["ports"]] == wanted


def test_more_objects_are_templates() -> None:
    more = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}}]
    assert render(merged(LEAST, {"extraObjects": more})).one("ConfigMap", "r-more")


def test_secrets_of_kafka_are_mounted_where_the_settings_say(tmp_path: Path) -> None:
    kafka = {
        "settings": {"tls": True, "mechanism": "SCRAM-SHA-512", "username": "us"},
        "passwordSecret": {"name": "kafka-user"},
        "caSecret": {"name": "kafka-ca", "key": "tls-ca.pem"},
        "certSecret": "kafka-cert",
    }
    objects = render(merged(LEAST, {"kafka": kafka}))
    given = objects.settings("trainer")["log"]["kafka"]
    spec = objects.one("StatefulSet", "-trainer")["spec"]["template"]["spec"]
    mounts = {each["name"]: each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
    files = {
        f"{mounts[volume['name']]}/{item['path']}": (volume["secret"]["secretName"], item["key"])
        for volume in spec["volumes"]
        if "secret" in volume
        for item in volume["secret"]["items"]
    }
    assert files == {
        given["password_file"]: ("kafka-user", "password"),
        given["ca_file"]: ("kafka-ca", "tls-ca.pem"),
        given["cert_file"]: ("kafka-cert", "tls.crt"),
        given["key_file"]: ("kafka-cert", "tls.key"),
    }


def test_a_trainer_of_several_ranks_is_started_in_one_pod() -> None:
    def trainer(values: Object) -> Object:
        pod = render(merged(LEAST, {"trainer": values})).one("StatefulSet", "-trainer")["spec"]
        assert pod["replicas"] == 1
        (container,) = pod["template"]["spec"]["containers"]
        return container

    gpus = {"resources": {"limits": {"nvidia.com/gpu": 4}}}
    one, four = trainer({}), trainer({"ranks": 4, **gpus})
    assert "command" not in one, "the image's own"
    launch = ["python", "-m", "rlhf_online.training.distributed.launch", "--nproc-per-node", "4"]
    assert four["command"] == [*launch, "-m", "services.trainer"] and four["args"] == one["args"]
    ranks = {"name": "RLHF_RANKS", "value": "4"}
    assert [*one["env"], ranks] == four["env"], "so that `doctor` in the pod reckons with as many"
    for resources in (gpus, {"resources": {"requests": {"nvidia.com/gpu": "4"}}}):
        said = refusal(merged(LEAST, {"trainer": {"ranks": 5, **resources}}))
        assert "trainer.ranks is 5, and trainer.resources asks for 4 GPUs" in said
    assert "trainer" in refusal(merged(LEAST, {"trainer": {"ranks": 0}}))


def test_a_trainer_on_several_nodes_is_one_group_whose_first_pod_alone_has_secrets_ports_and_a_token() -> None:
    kafka = {"passwordSecret": {"name": "kafka-user"}, "caSecret": {"name": "kafka-ca"}}
    values = merged(LEAST, {"trainer": {"nodes": 3, "ranks": 2}, "kafka": kafka})
    objects = render(values)
    assert not objects.of("StatefulSet", "-trainer") and not objects.of("Service", "-trainer")
    (group,) = objects.of("LeaderWorkerSet")
    one = render(LEAST).one("StatefulSet", "-trainer")["spec"]
    assert group["spec"]["replicas"] == 1
    group = group["spec"]["leaderWorkerTemplate"]
    assert (group["size"], group["restartPolicy"]) == (3, "RecreateGroupOnPodRestart")
    assert "volumeClaimTemplates" not in group, "each pod would have one"
    (claim,) = objects.of("PersistentVolumeClaim", "-trainer-0")
    assert claim["spec"] == one["volumeClaimTemplates"][0]["spec"]

    leader, worker = (group[name]["spec"] for name in ("leaderTemplate", "workerTemplate"))
    (kept,), (passing,) = ([each for each in spec["volumes"] if each["name"] == "state"] for spec in (leader, worker))
    assert kept["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"] and passing["emptyDir"] == {}
    (leads,), (follows,) = leader["containers"], worker["containers"]
    nodes = ["--nnodes", "3", "--node-rank", "$(LWS_WORKER_INDEX)", "--master-addr", "$(LWS_LEADER_ADDRESS)"]
    command = ["python", "-m", "torch.distributed.run", *nodes, "--master-port", "29500", "--nproc-per-node", "2"]
    for each in (leads, follows):
        assert each["command"] == [*command, "-m", "services.trainer"]
        assert each["args"] == one["template"]["spec"]["containers"][0]["args"]
    assert {key: leads[key] for key in ("env", "ports", "startupProbe", "livenessProbe", "readinessProbe")}
    assert not {"env", "ports", "startupProbe", "livenessProbe", "readinessProbe"} & follows.keys()
    told = {each["name"]: each.get("value") for each in leads["env"]}
    assert (told["RLHF_RANKS"], told["RLHF_NODES"]) == ("2", "3")
    assert leader["automountServiceAccountToken"] and not worker["automountServiceAccountToken"]
    assert {each["name"] for each in leader["volumes"] if "secret" in each} == {"kafka-password", "kafka-ca"}
    assert not [each for each in worker["volumes"] if "secret" in each]
    labels = [group[name]["metadata"]["labels"] for name in ("leaderTemplate", "workerTemplate")]
    (monitor,) = render(merged(values, monitored())).of("PodMonitor", "-trainer")
    assert [monitor["spec"]["selector"]["matchLabels"].items() <= each.items() for each in labels] == [True, False]


def test_the_pods_of_a_trainer_on_several_nodes_reach_one_another_on_all_ports_and_nobody_else_does() -> None:
    objects = render(merged(LEAST, {"trainer": {"nodes": 2}}))
    policies = objects.of("NetworkPolicy")
    pods = {
        labels["app.kubernetes.io/component"]: Pod(namespace="chat", labels=labels)
        for labels in (each["metadata"]["labels"] for each in objects.pods())
    }
    for source, target, through in (
        ("trainer", "trainer-worker", True),
        ("trainer-worker", "trainer", True),
        ("trainer-worker", "trainer-worker", True),
        ("trainer-worker", "reward", False),
        ("chat", "trainer-worker", False),
        ("reward", "trainer", False),
    ):
        for port in (29500, 41234):
            assert reaches(policies, pods[source], pods[target], port) is through, (source, target)
