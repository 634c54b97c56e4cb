"""What holds of versions in a bucket beyond the contract: what is sent, what is kept here, and what goes wrong."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import pytest

from rlhf_online.errors import ConfigError, Fenced, StoreUnavailable, VersionConflict, VersionCorrupt
from rlhf_online.versions import blobs, local_copies
from rlhf_online.versions.bucket import Bucket
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.object_store import ObjectStore
from rlhf_online.versions.registry import Registry
from tests.support.object_server import BUCKET, DENIED, FULL, HIDDEN, ObjectServer, environment
from tests.support.proxy import Proxy

TOKENIZER = "the same for all"


class Machines:
    """Machines that share a bucket, each with copies of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"s3://{BUCKET}/{folder.name}"

    def store(self, name: str, guard: Callable[[], AbstractContextManager[None]] = nullcontext) -> ObjectStore:
        return ObjectStore(Bucket(self.url), self.copies(name), 1 << 30, guard)

    def registry(self, name: str = "trainer") -> Registry:
        return Registry(self.store(name))

    def copies(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture
def machines(bucket: ObjectServer, tmp_path: Path) -> Machines:
    return Machines(tmp_path)


@pytest.fixture
def proxy(bucket: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What stands between the storage and clients that are made from now on."""
    with Proxy() as proxy:
        proxy.target = bucket.port
        monkeypatch.setenv("AWS_ENDPOINT_URL", environment(proxy.port)["AWS_ENDPOINT_URL"])
        yield proxy


def publish(registry: Registry, weights: str = "") -> str:
    version = registry.reserve("policy")
    folder = registry.stage(version)
    (folder / "model.safetensors").write_text(weights or f"weights of {version}")
    (folder / "tokenizer.json").write_text(TOKENIZER)
    registry.publish(Manifest(version=version, tuning="full"))
    return version


def blobs_read(server: ObjectServer) -> list[str]:
    return [path for method, path, *_ in server.requests() if method == "GET" and "/blobs/sha256/" in path]


# What is sent


def test_a_file_that_many_versions_have_is_stored_and_sent_once(machines: Machines, bucket: ObjectServer) -> None:
    registry = machines.registry()
    for _ in range(3):
        publish(registry)
    sent = [path for method, path, *_ in bucket.requests() if method == "PUT" and "/blobs/" in path]
    assert len(sent) == len(set(sent)) == 4, "three versions' weights and one tokenizer"


def test_to_ask_again_which_version_is_live_is_one_small_request(machines: Machines, bucket: ObjectServer) -> None:
    trainer = machines.registry()
    trainer.promote(publish(trainer))
    pod = machines.registry("pod")
    assert pod.live("policy") == "policy-000000"
    bucket.requests()
    for _ in range(20):
        assert pod.live("policy") == "policy-000000"
    asked = bucket.requests()
    assert [(method, status, length) for method, _, status, length in asked] == [("GET", 304, 0)] * 20
    trainer.promote(publish(trainer))
    assert pod.live("policy") == "policy-000001", "and what has changed is seen at once"


def test_of_two_machines_that_promote_one_wins_and_the_other_is_told(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = machines.registry("here"), machines.registry("there")
    first, second, third = (publish(here) for _ in range(3))
    here.promote(first)
    replace = there.store.replace

    def too_late(key: str, value: str, *, expected: str | None) -> bool:
        if key == "live/policy" and here.live("policy") == first:
            here.promote(second)
        return replace(key, value, expected=expected)

    monkeypatch.setattr(there.store, "replace", too_late)
    with pytest.raises(VersionConflict, match=f"{third} was not promoted: {second} has taken the place of {first}"):
        there.promote(third)
    assert machines.registry("else").live("policy") == second


def test_who_has_lost_the_lease_changes_nothing(machines: Machines) -> None:
    @contextmanager
    def fenced() -> Iterator[None]:
        raise Fenced("another trainer has taken over")
        yield

    store = machines.store("trainer")
    (staged := store.stage("policy-000000")).joinpath("model.safetensors").write_text("weights")
    store.put("policy-000000", staged, lambda _: b"{}")
    staged, replaced = store.stage("policy-000001"), machines.store("replaced", fenced)
    for change in (
        lambda: replaced.stage("policy-000001"),
        lambda: replaced.put("policy-000001", staged, lambda _: b"{}"),
        lambda: replaced.replace("live/policy", "policy-000000", expected=None),
        lambda: replaced.discard_files("policy-000000"),
    ):
        with pytest.raises(Fenced):
            change()
    assert store.versions() == ["policy-000000"] and store.read("live/policy") is None
    assert store.files("policy-000000") == {"model.safetensors"}


def test_storage_that_passes_over_conditions_is_refused(machines: Machines, bucket: ObjectServer) -> None:
    bucket.pass_over_conditions()
    with pytest.raises(ConfigError, match=r"writes whatever If-Match and If-None-Match say"):
        publish(machines.registry())


# Copies


def test_who_has_put_a_version_has_its_copy_and_others_fetch_each_file_once(
    machines: Machines, bucket: ObjectServer
) -> None:
    trainer = machines.registry()
    versions = [publish(trainer) for _ in range(2)]
    bucket.requests()
    trainer.verify(versions[0])
    assert blobs_read(bucket) == []
    pod = machines.registry("pod")
    for version in (*versions, *versions):
        assert (pod.path(version) / "tokenizer.json").read_text() == TOKENIZER
        assert pod.verify(version).version == version
    fetched = blobs_read(bucket)
    assert len(fetched) == len(set(fetched)) == 3


@pytest.mark.parametrize("damage", ["change", "truncate", "remove"])
def test_a_damaged_copy_is_fetched_anew(machines: Machines, damage: str) -> None:
    version = publish(machines.registry())
    pod = machines.registry("pod")
    path = pod.path(version) / "model.safetensors"
    whole = path.read_text()
    match damage:
        case "change":
            path.write_text(whole[:-1] + "?")
        case "truncate":
            path.write_text(whole[:-1])
        case "remove":
            path.unlink()
    pod.verify(version)
    assert (pod.path(version) / "model.safetensors").read_text() == whole


def test_a_file_that_is_damaged_in_the_bucket_makes_its_version_corrupt(machines: Machines) -> None:
    version = publish(machines.registry())
    storage = Bucket(machines.url)
    name = next(blob.name for blob in storage.listed("blobs/sha256") if blob.size > len(TOKENIZER))
    (machines.folder / "bad").write_text("other")
    storage.upload(f"blobs/sha256/{name}", machines.folder / "bad")
    with pytest.raises(VersionCorrupt, match=rf"{machines.url}/blobs/sha256/{name} does not have the SHA-256"):
        machines.registry("pod").verify(version)
    assert not list(machines.copies("pod").glob("policy-*")), "nothing of it lies where an engine would load it"


def test_processes_that_share_copies_fetch_at_once_and_all_have_the_version(machines: Machines) -> None:
    version = publish(machines.registry())
    stores = [machines.store("pod") for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        folders = list(threads.map(lambda store: store.materialise(version), stores))
    assert {(folder / "tokenizer.json").read_text() for folder in folders} == {TOKENIZER}
    assert [path.name for path in machines.copies("pod").iterdir() if path.name.startswith(".")] == []


def test_copies_beyond_the_bound_go_and_the_newest_of_a_kind_stay(machines: Machines) -> None:
    trainer = machines.registry()
    versions = [publish(trainer) for _ in range(local_copies.KEPT + 2)]
    pod = ObjectStore(Bucket(machines.url), machines.copies("pod"), most=1)
    for version in versions:
        pod.materialise(version)
    assert sorted(path.name for path in machines.copies("pod").glob("policy-*")) == versions[2:]
    assert len(list((machines.copies("pod") / "blobs").iterdir())) == local_copies.KEPT + 1
    assert (pod.materialise(versions[0]) / "tokenizer.json").read_text() == TOKENIZER, "it can be fetched again"


# What goes wrong


def test_storage_that_is_away_is_named_and_serves_again_when_it_is_back(machines: Machines, proxy: Proxy) -> None:
    registry = machines.registry()
    registry.promote(publish(registry))
    proxy.cut = True
    with pytest.raises(StoreUnavailable, match=rf"{machines.url}/records/live/policy cannot be read now \(.+\): see"):
        registry.live("policy")
    with pytest.raises(OSError, match="cannot be"):
        registry.reserve("policy")
    proxy.cut = False
    assert registry.live("policy") == "policy-000000"


def test_storage_that_does_not_answer_is_given_up_soon(
    machines: Machines, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhf_online.versions.bucket.ANSWER_S", 1)
    registry = machines.registry()
    proxy.delay_s = 3.0
    with pytest.raises(StoreUnavailable, match="no answer in time"):
        registry.live("policy")


def test_a_promotion_whose_answer_is_lost_is_not_said_to_be_anothers_and_is_completed(
    machines: Machines, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows whether it was made: sent again, it would be refused for its own success."""
    registry = machines.registry()
    versions = [publish(registry) for _ in range(2)]
    registry.promote(versions[0])
    replace = registry.store.replace

    def answer_lost(key: str, value: str, *, expected: str | None) -> bool:
        if key == "live/policy":
            proxy.large, proxy.lose_replies = 0, 1
        return replace(key, value, expected=expected)

    with monkeypatch.context() as patch:
        patch.setattr(registry.store, "replace", answer_lost)
        with pytest.raises(StoreUnavailable, match="live/policy cannot be written now"):
            registry.promote(versions[1])
    assert registry.promote(versions[1]).state == "live"
    assert [registry.status(version).state for version in versions] == ["retired", "live"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (DENIED, r"may not be written \(AccessDenied: .*\): permit it to the credentials of this process"),
        (FULL, r"cannot be written, the storage is full \(XMinioStorageFull: .*\): make room there"),
    ],
)
def test_storage_that_takes_no_writes_is_named_with_the_key_and_is_read_all_the_same(
    machines: Machines, bucket: ObjectServer, answer: tuple[int, str], said: str
) -> None:
    registry = machines.registry()
    versions = [publish(registry) for _ in range(2)]
    registry.promote(versions[0])
    bucket.refuse(answer, "PUT POST")
    with pytest.raises(StoreUnavailable, match=rf"{machines.url}/records/live/policy {said}"):
        registry.promote(versions[1])
    with pytest.raises(StoreUnavailable, match=rf"{machines.url}/records/next/policy {said}"):
        publish(registry)
    assert registry.live("policy") == versions[0]
    registry.verify(versions[0])


def test_a_bucket_that_is_not_there_is_no_empty_store(bucket: ObjectServer, tmp_path: Path) -> None:
    """Or a pod would begin anew because of a typing mistake."""
    registry = Registry(ObjectStore(Bucket("s3://no-such-bucket/x"), tmp_path, 1 << 30))
    with pytest.raises(StoreUnavailable, match="there is no bucket for s3://no-such-bucket/x"):
        registry.live("policy")


def test_where_there_are_no_credentials_it_says_which_to_set(
    bucket: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(StoreUnavailable, match="no credentials: set AWS_ACCESS_KEY_ID"):
        Registry(ObjectStore(Bucket(f"s3://{BUCKET}/x"), tmp_path, 1 << 30)).live("policy")


def test_a_file_that_storage_shows_late_is_waited_for(machines: Machines, bucket: ObjectServer) -> None:
    version = publish(machines.registry())
    bucket.refuse(HIDDEN, "GET", "/blobs/")
    timer = threading.Timer(0.3, bucket.relent)
    timer.start()
    assert (machines.registry("pod").path(version) / "tokenizer.json").read_text() == TOKENIZER
    timer.join()


def test_a_file_that_is_gone_makes_its_version_corrupt(
    machines: Machines, bucket: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "VISIBLE_S", (0.0,))
    version = publish(machines.registry())
    bucket.refuse(HIDDEN, "GET", "/blobs/")
    with pytest.raises(VersionCorrupt, match=rf"{machines.url}/blobs/sha256/.* is missing"):
        machines.registry("pod").verify(version)


def test_what_is_removed_already_may_be_removed_again(tmp_path: Path) -> None:
    """S3 says nothing of it, but a folder, Google's and Azure's storage do: a kill in between would stop all later."""
    bucket = Bucket(tmp_path.as_uri())
    for name in ("first", "last"):
        (tmp_path / name).touch()
    bucket.delete(["first", "first", "last"])
    assert not list(tmp_path.iterdir())


def test_a_pointer_to_a_version_that_is_gone_leaves_the_one_before_it_live(machines: Machines) -> None:
    registry = machines.registry()
    versions = [publish(registry) for _ in range(2)]
    for version in versions:
        registry.promote(version)
    Bucket(machines.url).delete([f"versions/{versions[1]}.json"])
    pod = machines.registry("pod")
    assert pod.live("policy") == versions[0]
    assert f"names no version that is there: {versions[0]} counts as live" in pod.damaged["live/policy"]


def test_a_record_that_is_no_text_is_written_anew(machines: Machines) -> None:
    store = machines.store("trainer")
    store.replace("pods/00", "", expected=None)
    place = Bucket(machines.url)
    place.put("records/pods/00", b"\xff\x00", place.get("records/pods/00"))
    assert not store.replace("pods/00", "{}", expected="")
    assert store.replace("pods/00", "{}", expected=store.read("pods/00"))
    assert machines.store("pod").read("pods/00") == "{}"


def test_blobs_that_no_version_has_are_strays_once_they_are_old(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = machines.registry()
    version = publish(registry)
    (machines.folder / "left").write_text("what a killed trainer had uploaded")
    Bucket(machines.url).upload("blobs/sha256/0123", machines.folder / "left")
    assert registry.store.strays() == []
    monkeypatch.setattr(blobs, "GRACE", timedelta(0))
    strays = registry.store.strays()
    assert [stray.key for stray in strays] == ["blobs/sha256/0123"]
    registry.store.remove(strays)
    assert registry.store.strays() == []
    assert machines.registry("pod").verify(version).version == version
