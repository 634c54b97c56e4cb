"""A trainer on several nodes: what the real controller of LeaderWorkerSets makes of the chart's group."""

import pytest

from tests.ops.cluster.releases import READY_S, Release, installed, is_ready, name_of, release
from tests.support.simulated_cluster import Cluster, Object
from tests.support.waiting import until

pytestmark = pytest.mark.ops

NODES = 3
VALUES = {"trainer": {"nodes": NODES, "ranks": 2}}


def group(chat: Release, *, but: frozenset[str] = frozenset()) -> list[Object]:
    """The pods of the group by rank, once all are ready and none is one of these uids."""
    found: list[Object] = []

    def complete() -> bool:
        pods = [*chat.find("pods", "trainer"), *chat.find("pods", "trainer-worker")]
        found[:] = sorted(pods, key=lambda pod: variable(pod, "LWS_WORKER_INDEX"))
        return len(found) == NODES and all(map(is_ready, found)) and but.isdisjoint(uids(found))

    until(complete, READY_S, lambda: f"the group; {chat.cluster.log('lws-controller')}", poll_s=0.2)
    return found


def uids(pods: list[Object]) -> frozenset[str]:
    return frozenset(pod["metadata"]["uid"] for pod in pods)


def variable(pod: Object, name: str) -> str:
    (container,) = pod["spec"]["containers"]
    return next((each.get("value", "") for each in container["env"] if each["name"] == name), "")


def claim_of(leader: Object) -> str:
    """Where its state lies."""
    (state,) = [volume for volume in leader["spec"]["volumes"] if volume["name"] == "state"]
    return state["persistentVolumeClaim"]["claimName"]


def trainers_claims(chat: Release) -> list[str]:
    """All but the chat service's and the versions'."""
    claims = chat.cluster.find("persistentvolumeclaims", chat.namespace)
    return [name_of(claim) for claim in claims if "trainer" in name_of(claim)]


def test_each_node_knows_its_rank_and_where_the_first_one_is(chat: Release) -> None:
    pods = group(chat)
    (headless,) = [
        one for one in chat.cluster.find("services", chat.namespace) if name_of(one) == pods[0]["spec"]["subdomain"]
    ]
    assert headless["spec"]["clusterIP"] == "None" and headless["spec"]["publishNotReadyAddresses"]
    leader = f"{name_of(pods[0])}.{name_of(headless)}.{chat.namespace}"
    assert name_of(pods[0]).endswith("-trainer-group-0")
    for rank, pod in enumerate(pods):
        labels = pod["metadata"]["labels"]
        assert headless["spec"]["selector"].items() <= labels.items()
        (container,) = pod["spec"]["containers"]
        assert "$(LWS_WORKER_INDEX)" in container["command"] and "$(LWS_LEADER_ADDRESS)" in container["command"]
        assert variable(pod, "LWS_WORKER_INDEX") == str(rank)
        assert variable(pod, "LWS_LEADER_ADDRESS") == leader
        assert bool(variable(pod, "RLHF_OPERATOR_TOKEN") or "operator.token" in str(container["env"])) == (rank == 0)


def test_a_changed_setting_replaces_the_whole_group(chat: Release) -> None:
    before = uids(group(chat))
    chat.upgrade({**VALUES, "trainer": {**VALUES["trainer"], "settings": {"min_votes": 64}}})
    group(chat, but=before)


@pytest.mark.parametrize("rank", [0, NODES - 1])
def test_with_one_of_them_lost_all_begin_anew(chat: Release, rank: int) -> None:
    """The others would wait for it in vain: they go on together from the last checkpoint."""
    before = group(chat)
    chat.cluster.kubectl("delete", "pod", name_of(before[rank]), "--namespace", chat.namespace, "--wait=false")
    after = group(chat, but=uids(before))
    assert [name_of(pod) for pod in after] == [name_of(pod) for pod in before]


def test_from_one_node_to_several_and_back_the_checkpoints_stay(cluster: Cluster) -> None:
    with installed(cluster) as chat:
        (claim,) = chat.find("persistentvolumeclaims", "trainer")
        for _ in range(2):
            chat.upgrade(VALUES)
            leader, *_ = group(chat)
            assert [claim_of(leader)] == trainers_claims(chat) == [name_of(claim)]
            chat.upgrade()
            assert "chat-rlhf-online-trainer" in chat.workloads()
            until(lambda: not chat.find("pods", "trainer-worker"), READY_S, "the group to end")
        (still,) = chat.find("persistentvolumeclaims", "trainer")
        assert still["metadata"]["uid"] == claim["metadata"]["uid"]


def test_who_begins_with_several_nodes_has_one_volume_for_the_trainer_which_stays(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    with release(cluster, namespace) as chat:
        chat.install(VALUES)
        leader, *_ = group(chat)
        (claim,) = chat.find("persistentvolumeclaims", "trainer")
        assert [claim_of(leader)] == trainers_claims(chat) == [name_of(claim)]
        chat.upgrade(VALUES)
        chat.upgrade()
        assert "chat-rlhf-online-trainer" in chat.workloads()
        chat.upgrade(VALUES)
        group(chat)
    (still,) = chat.find("persistentvolumeclaims", "trainer")
    assert still["metadata"]["uid"] == claim["metadata"]["uid"]
