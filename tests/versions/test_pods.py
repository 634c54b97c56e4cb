"""What pods say of themselves in a store, over every store that there is."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlhf_online.versions import pods
from rlhf_online.versions.pods import PodReport, Tally
from rlhf_online.versions.store import VersionStore

BAD = "policy-000007"


def report(pod: str, serving: str = "policy-000006", *, why: str = "") -> PodReport:
    return PodReport(pod=pod, serving=serving, state="ready", could_not={BAD: why} if why else {})


def test_what_each_pod_said_last_is_read_by_all(store: VersionStore) -> None:
    assert pods.reports(store) == []
    pods.tell(store, report("b"))
    pods.tell(store, report("a", why="out of memory"))
    pods.tell(store, report("b", BAD))
    told = pods.reports(store)
    assert [(each.pod, each.serving, each.could_not) for each in told] == [
        ("a", "policy-000006", {BAD: "out of memory"}),
        ("b", BAD, {}),
    ]
    assert pods.tally(told, BAD) == Tally(pods=2, serve=1, could_not=1)
    assert pods.tally(told, "policy-000006") == Tally(pods=2, serve=1, could_not=0)


def test_pods_that_tell_at_once_lose_nothing(store: VersionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "RETRY_S", 0.001)
    names = [f"pod-{number}" for number in range(40)]
    with ThreadPoolExecutor(16) as threads:
        counts = list(threads.map(lambda name: pods.tell(store, report(name)), names))
    assert [each.pod for each in pods.reports(store)] == sorted(names)
    assert max(counts) > 16, "by then it is known about how many there are"


def test_a_pod_that_says_nothing_any_more_counts_no_more_and_leaves_the_record(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = report("gone", why="its disk is full")
    same = next(name for name in map(str, range(1000)) if pods.shard(name) == pods.shard("gone"))
    pods.tell(store, gone)
    at = pods.reports(store)[0].told_ms
    monkeypatch.setattr(pods, "now_ms", lambda: at + round(pods.LATELY_S * 1000))
    assert pods.tally(pods.reports(store), BAD).could_not == 1
    monkeypatch.setattr(pods, "now_ms", lambda: at + round(pods.LATELY_S * 1000) + 1)
    assert pods.reports(store) == []
    pods.tell(store, report(same))
    assert list(json.loads(store.read(pods.shard("gone")) or "")) == [same]


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "no JSON",
        "[]",
        '{"b": 1, "c": {"serving": 7}, "d": {"serving": "", "state": "", "told_ms": 1, "could_not": []}}',
        '{"b": {"serving": "", "state": "", "told_ms": 1, "could_not": {"policy-000001": null}}}',
    ],
)
def test_a_damaged_record_takes_nobody_down_and_is_written_anew(store: VersionStore, damage: str) -> None:
    store.replace(pods.shard("a"), damage, expected=None)
    assert pods.reports(store) == []
    pods.tell(store, report("a"))
    assert [each.pod for each in pods.reports(store)] == ["a"]


def test_what_a_pod_says_is_bounded(store: VersionStore) -> None:
    whys = {f"policy-{number:06d}": "x" * 10_000 for number in range(100)}
    pods.tell(store, PodReport(pod="a", could_not=whys))
    assert len(store.read(pods.shard("a")) or "") < 3000
    assert list(pods.reports(store)[0].could_not)[-1] == "policy-000099", "the newest are kept"
