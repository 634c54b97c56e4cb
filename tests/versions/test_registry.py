"""Versions are immutable, never half there, and exactly one of a kind is live."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlhf_online.errors import InvalidInput, UnknownVersion, VersionConflict, VersionUnfit
from rlhf_online.versions import pins
from rlhf_online.versions.manifest import Change, Kind, Manifest, ProbeSequence, Status, kind_of
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.store import VersionStore


def publish(registry: Registry, kind: Kind = "policy", content: str = "weights") -> str:
    version = registry.reserve(kind)
    (registry.stage(version) / "model.safetensors").write_text(content)
    registry.publish(Manifest(version=version, tuning="full", position={"local": 3}))
    return version


def test_an_empty_registry_has_nothing_live(registry: Registry) -> None:
    assert registry.live("policy") is None
    assert registry.versions() == []
    for ask in (registry.path, registry.status, registry.manifest):
        with pytest.raises(UnknownVersion, match="no version 'policy-000000'"):
            ask("policy-000000")


def test_of_a_version_that_is_not_there_nothing_is_noted(registry: Registry) -> None:
    for change in (registry.promote, lambda version: registry.mark(version, "failed", reason="why")):
        with pytest.raises(UnknownVersion, match="no version 'policy-000000'"):
            change("policy-000000")
    assert registry.store.read("states/policy-000000.json") is None


def test_a_name_is_never_given_twice(registry: Registry) -> None:
    assert [registry.reserve("policy") for _ in range(3)] == ["policy-000000", "policy-000001", "policy-000002"]
    assert registry.reserve("reward") == "reward-000000"
    assert Registry(registry.store).reserve("policy") == "policy-000003"


def test_a_version_that_was_not_staged_here_is_refused_in_one_sentence(registry: Registry) -> None:
    with pytest.raises(InvalidInput, match="policy-000007 cannot be published: its files were not staged here"):
        registry.publish(Manifest(version="policy-000007", tuning="full"))
    assert registry.versions() == []
    version = publish(registry)
    assert Registry(registry.store).publish(Manifest(version=version, tuning="full")).version == version, "again"


def test_a_manifest_is_read_once_however_often_versions_are_listed(registry: Registry) -> None:
    version = registry.reserve("policy")
    (registry.stage(version) / "w").write_bytes(b"weights")
    probe = (ProbeSequence(token_ids=(1, 2), logprobs=(-0.5,)),)
    registry.publish(Manifest(version=version, tuning="full", probe=probe))
    assert registry.manifest(version) is registry.manifest(version)
    assert registry.verify(version) == registry.manifest(version)


def test_a_published_version_is_a_candidate_with_its_files_hashed(registry: Registry) -> None:
    version = registry.reserve("policy")
    (registry.stage(version) / "model.safetensors").write_bytes(b"weights")
    probe = (ProbeSequence(token_ids=(1, 2, 3), logprobs=(-0.5, -1.5)),)
    registry.publish(Manifest(version=version, tuning="full", parent="", probe=probe, kl=0.25))
    manifest = registry.verify(version)
    assert [(item.path, item.size) for item in manifest.files] == [("model.safetensors", 7)]
    assert (manifest.probe, manifest.kl) == (probe, 0.25)
    assert registry.status(version).state == "candidate"
    assert registry.live("policy") is None


def test_a_staged_version_is_not_there_before_it_is_published(registry: Registry) -> None:
    version = registry.reserve("policy")
    (registry.stage(version) / "model.safetensors").write_bytes(b"half")
    assert registry.versions() == []
    with pytest.raises(UnknownVersion):
        registry.manifest(version)


def test_publishing_twice_changes_nothing(registry: Registry) -> None:
    version = publish(registry)
    before = registry.manifest(version)
    (registry.stage(version) / "model.safetensors").write_text("other")
    assert registry.publish(Manifest(version=version, tuning="full")) == before
    registry.verify(version)


def test_promotion_retires_the_version_before(registry: Registry) -> None:
    first, second, reward = publish(registry), publish(registry), publish(registry, "reward")
    registry.promote(first)
    change = registry.promote(second, reason="better", gate={"win_rate": 0.6})
    registry.promote(reward)
    assert (change.previous, registry.live("policy"), registry.live("reward")) == (first, second, reward)
    assert registry.status(first).state == "retired"
    assert registry.status(second).gate == {"win_rate": 0.6}
    assert registry.versions("policy") == [first, second]


def test_each_change_of_state_says_who_made_it(store: VersionStore) -> None:
    trainer = Registry(store, "trainer")
    first, second, third = (publish(trainer) for _ in range(3))
    assert [trainer.promote(first).by, trainer.promote(second, by="operator k1").by] == ["trainer", "operator k1"]
    assert trainer.status(first).by == "operator k1", "it was retired by whoever put another in its place"
    trainer.mark(third, "rejected", reason="KL")
    assert Registry(store, "pod a").rollback("policy", reason="the engine refused it").by == "pod a"
    assert [trainer.status(version).by for version in (first, second, third)] == ["pod a", "pod a", "trainer"]


def test_what_was_refused_cannot_be_promoted(registry: Registry) -> None:
    version = publish(registry)
    registry.mark(version, "rejected", reason="KL 30 above 12")
    with pytest.raises(InvalidInput, match="KL 30"):
        registry.promote(version)


def test_rollback_goes_to_the_newest_good_version(registry: Registry) -> None:
    first, second, third, fourth = (publish(registry) for _ in range(4))
    for version in (first, second, fourth):
        registry.promote(version)
    registry.mark(second, "failed", reason="probe")
    change = registry.rollback("policy", reason="people complain")
    assert (change.version, change.previous) == (first, fourth), "neither the failed nor the never promoted one"
    assert registry.live("policy") == first
    assert registry.status(fourth).state == "failed"
    assert registry.status(third).state == "candidate"
    with pytest.raises(InvalidInput, match="none before it"):
        registry.rollback("policy", reason="again")


def test_rollback_of_an_old_version_that_was_promoted_goes_to_the_one_that_it_replaced(registry: Registry) -> None:
    first, second, third = (publish(registry) for _ in range(3))
    for version in (first, second, third, second):
        registry.promote(version)
    assert registry.rollback("policy", reason="the engine refused it").version == third
    assert registry.rollback("policy", reason="people complain").version == first


def test_pruned_versions_can_neither_be_promoted_nor_gone_back_to(registry: Registry) -> None:
    names = [publish(registry) for _ in range(5)]
    for name in names:
        registry.promote(name)
    rejected = [publish(registry) for _ in range(2)]
    for name in rejected:
        registry.mark(name, "rejected", reason="the gate")
    assert registry.prune("policy", 1) == [names[1], names[2], rejected[0]]
    assert registry.prune("policy", 1) == []
    with pytest.raises(InvalidInput, match="no weights any more"):
        registry.promote(names[1])
    assert registry.rollback("policy", reason="people complain").version == names[3]
    assert registry.rollback("policy", reason="again").version == names[0], "the first version is always kept"


def test_a_version_that_is_pointed_at_keeps_its_weights_whatever_its_state_says(registry: Registry) -> None:
    names = [publish(registry) for _ in range(4)]
    for name in names:
        registry.promote(name)
    # Somebody promotes an old version again, and has moved the pointer so far.
    assert registry.store.replace("live/policy", names[1], expected=names[3])
    assert registry.prune("policy", 0) == [names[2]]
    assert registry.has_weights(names[1])


def test_the_reference_is_the_first_version_until_it_is_refreshed_on_purpose(registry: Registry) -> None:
    assert registry.references() == []
    names = [publish(registry) for _ in range(4)]
    for name in names:
        registry.promote(name)
    assert registry.references() == [names[0]]
    for _ in range(2):
        registry.refresh_reference(names[1])
    assert Registry(registry.store).references() == [names[0], names[1]]
    assert registry.prune("policy", 1) == [] and registry.prune("reward", 1) == [], "the reference keeps its weights"
    for unusable, why in ((publish(registry), "serves or has served"), (publish(registry, "reward"), "no policy")):
        with pytest.raises(InvalidInput, match=why):
            registry.refresh_reference(unusable)
    registry.refresh_reference(names[0])
    assert registry.prune("policy", 1) == [names[1]]
    with pytest.raises(InvalidInput, match="no weights any more"):
        registry.refresh_reference(names[1])


def test_rollback_of_a_version_that_is_no_longer_live_does_nothing(registry: Registry) -> None:
    first, second = publish(registry), publish(registry)
    registry.promote(first)
    registry.promote(second)
    registry.rollback("policy", reason="probe", failed=first)
    assert registry.live("policy") == second
    assert registry.status(first).state == "retired"


def test_before_an_audiences_first_version_there_is_the_common_one(registry: Registry) -> None:
    common, first = publish(registry), publish(registry, "policy.brief")
    for version in (common, first):
        registry.promote(version)
    change = registry.rollback("policy.brief", reason="worse")
    assert (change.version, change.state, registry.status(first).reason) == (first, "failed", "worse")
    assert (registry.live("policy"), registry.lineage("policy.brief")) == (common, [])
    with pytest.raises(InvalidInput, match="none before it"):
        registry.rollback("policy.brief", reason="again")
    second = publish(registry, "policy.brief")
    registry.promote(second, over=first)
    assert registry.rollback("policy.brief", reason="the engine refused it", failed=second).state == "failed"


def test_rollback_of_what_never_was_live_is_refused(registry: Registry) -> None:
    publish(registry, "reward")
    with pytest.raises(InvalidInput, match="no reward version is live"):
        registry.rollback("reward", reason="worse")


# Several at once, and kills


def test_of_two_promoters_one_wins_and_the_other_is_told(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    first, ours, theirs = (publish(registry) for _ in range(3))
    registry.promote(first)
    _before_the_pointer_moves(registry, monkeypatch, lambda other: other.promote(theirs))
    with pytest.raises(VersionConflict, match=f"{ours} was not promoted: {theirs} has taken the place of {first}"):
        registry.promote(ours)
    assert registry.live("policy") == theirs
    assert [registry.status(version).state for version in (first, ours, theirs)] == ["retired", "candidate", "live"]


def test_who_promotes_over_a_version_does_so_only_while_it_is_live(registry: Registry) -> None:
    first, ours, theirs = (publish(registry) for _ in range(3))
    registry.promote(first)
    registry.promote(theirs)
    with pytest.raises(VersionConflict, match=f"{ours} was not promoted: {theirs} is live, and not {first} any more"):
        registry.promote(ours, over=first)
    assert (registry.live("policy"), registry.status(ours).state) == (theirs, "candidate")
    assert registry.promote(ours, over=theirs).previous == theirs
    assert registry.promote(ours, over=theirs).version == ours, "doing it again completes it"


def test_a_roll_back_that_comes_second_leaves_the_winner_alone(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, bad, theirs = (publish(registry) for _ in range(3))
    registry.promote(first)
    registry.promote(bad)
    _before_the_pointer_moves(registry, monkeypatch, lambda other: other.promote(theirs))
    assert registry.rollback("policy", reason="people complain").version == theirs
    assert registry.live("policy") == theirs
    assert [registry.status(version).state for version in (first, bad, theirs)] == ["retired", "failed", "live"]


def test_a_version_that_fails_before_its_promotion_is_complete_gives_way_to_the_one_before(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, bad = (publish(registry) for _ in range(3))
    registry.promote(first)
    registry.promote(second)
    real = registry.store.replace

    def replace(key: str, value: str, *, expected: str | None) -> bool:
        done = real(key, value, expected=expected)
        if (key, value) == ("live/policy", bad):
            Registry(registry.store).rollback("policy", reason="probe", failed=bad)
        return done

    monkeypatch.setattr(registry.store, "replace", replace)
    registry.promote(bad, gate={"win_rate": 0.6})
    assert registry.live("policy") == second
    assert [registry.status(version).state for version in (first, second, bad)] == ["retired", "live", "failed"]
    assert registry.status(bad).gate == {"win_rate": 0.6}


def test_promotions_of_many_threads_leave_one_live_version_and_states_that_agree(registry: Registry) -> None:
    names = [publish(registry) for _ in range(6)]

    def promote(version: str) -> bool:
        try:
            Registry(registry.store).promote(version)
        except VersionConflict:
            return False
        return True

    with ThreadPoolExecutor(len(names)) as threads:
        won = list(threads.map(promote, names))
    live = registry.live("policy")
    assert live in [name for name, promoted in zip(names, won, strict=True) if promoted]
    assert [name for name in names if registry.status(name).state == "live"] == [live]
    losers = [name for name, promoted in zip(names, won, strict=True) if not promoted]
    assert {registry.status(name).state for name in losers} <= {"candidate"}


@pytest.mark.parametrize("step", range(6))
def test_a_promotion_that_was_killed_is_completed_by_doing_it_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    first, second = publish(registry), publish(registry)
    registry.promote(first)
    real, calls = registry.store.replace, 0

    def replace(key: str, value: str, *, expected: str | None) -> bool:
        nonlocal calls
        calls += 1
        if calls > step:
            raise OSError("killed")
        return real(key, value, expected=expected)

    with monkeypatch.context() as patch:
        patch.setattr(registry.store, "replace", replace)
        try:
            registry.promote(second, reason="better")
        except OSError:
            assert registry.live("policy") == (first if step == 0 else second)
    registry.promote(second, reason="better")
    assert registry.live("policy") == second
    assert [registry.status(version).state for version in (first, second)] == ["retired", "live"]
    assert registry.status(second).reason == "better"


def _before_the_pointer_moves(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Registry], object]
) -> None:
    """Let somebody else do `meanwhile` between the reading of the live pointer and its first replacement."""
    real, waiting = registry.store.replace, [meanwhile]

    def replace(key: str, value: str, *, expected: str | None) -> bool:
        if key == "live/policy" and waiting:
            waiting.pop()(Registry(registry.store))
        return real(key, value, expected=expected)

    monkeypatch.setattr(registry.store, "replace", replace)


def test_references_that_cannot_be_read_follow_from_the_manifests_and_the_record_is_named(registry: Registry) -> None:
    for reference in ("policy-000000", "policy-000000", "policy-000001"):
        version = registry.reserve("policy")
        (registry.stage(version) / "model.safetensors").write_text(version)
        registry.publish(Manifest(version=version, tuning="full", reference=reference))
    registry.store.replace("references", "no JSON", expected=None)
    assert registry.references() == ["policy-000000", "policy-000001"]
    assert list(registry.damaged) == ["references"] and "cannot be read" in registry.damaged["references"]


def test_when_a_version_served_first_stays_known_whatever_becomes_of_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = publish(registry), publish(registry)
    now = iter(range(1, 99))
    monkeypatch.setattr("rlhf_online.versions.registry.now_ms", lambda: next(now))
    registry.promote(first, gate={"kl": 1.0})
    assert registry.status(first).first_live_ms == registry.status(first).changed_ms == 1
    registry.promote(second)
    registry.promote(first, gate={"kl": 2.0}, reason="again")
    served = registry.status(first)
    assert (served.first_live_ms, served.gate, served.reason) == (1, {"kl": 2.0}, "again") and served.changed_ms > 1
    registry.mark(second, "failed", reason="people complain")
    registry.mark(first, "rejected", reason="by hand")
    assert registry.status(first).first_live_ms == 1 and registry.status(first).gate == {"kl": 2.0}
    never = publish(registry)
    registry.mark(never, "rejected", reason="the gate", gate={"kl": 30.0})
    assert (registry.status(never).first_live_ms, registry.status(never).gate) == (0, {"kl": 30.0})


def test_a_state_of_an_earlier_release_served_since_it_was_live(registry: Registry) -> None:
    """It does not say when it was live first."""
    first, second = publish(registry), publish(registry)
    old = {"state": "live", "reason": "", "gate": {}, "changed_ms": 7}
    registry.store.replace(f"states/{first}.json", json.dumps(old), expected=None)
    registry.store.replace("live/policy", first, expected=None)
    registry.promote(second)
    assert (registry.status(first).state, registry.status(first).first_live_ms) == ("retired", 7)
    old["state"] = "rejected"
    record = registry.store.read(f"states/{first}.json")
    registry.store.replace(f"states/{first}.json", json.dumps(old), expected=record)
    registry.mark(first, "failed", reason="")
    assert registry.status(first).first_live_ms == 0


def test_a_change_says_what_has_changed(registry: Registry) -> None:
    first, second = publish(registry), publish(registry)
    assert registry.promote(first, reason="base") == Change(version=first, state="live", reason="base")
    assert registry.promote(second) == Change(version=second, state="live", previous=first)
    assert registry.promote(second).previous == second, "again"
    back = registry.rollback("policy", reason="worse")
    assert back == Change(version=first, state="live", previous=second, reason="worse")
    assert registry.status(first).reason == f"{second} was rolled back: worse"
    assert registry.status(second).reason == "worse"
    late = registry.rollback("policy", reason="worse", failed=second)
    assert late == Change(version=first, state="live", previous=first, reason="worse"), "somebody was quicker"
    said = registry.mark(second, "rejected", reason="by hand")
    assert said == Change(version=second, state="rejected", reason="by hand")


def test_what_led_to_the_live_version_are_those_before_it_that_served(registry: Registry) -> None:
    assert registry.lineage() == []
    names = [publish(registry) for _ in range(5)]
    assert registry.lineage() == [], "none is live"
    for name in names[:4]:
        registry.promote(name)
    registry.mark(names[1], "failed", reason="people complain")
    assert registry.lineage() == [names[0], names[2], names[3]]
    registry.promote(names[2])
    assert registry.lineage() == [names[0], names[2]], "what served later did not lead to it"
    assert registry.fallbacks("policy") == [names[0], names[3]], "but can be gone back to"


def test_one_goes_back_in_the_order_in_which_versions_served(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(1, 99))
    monkeypatch.setattr("rlhf_online.versions.registry.now_ms", lambda: next(now))
    names = [publish(registry) for _ in range(4)]
    for name in (names[0], names[2], names[1], names[3]):
        registry.promote(name)
    assert registry.fallbacks("policy") == [names[0], names[2], names[1]]


def test_a_number_is_not_given_twice_though_the_record_of_it_is_behind(registry: Registry) -> None:
    for _ in range(3):
        publish(registry)
    registry.store.replace("next/policy", "1", expected="3")
    assert registry.reserve("policy") == "policy-000003"
    registry.store.replace("next/policy", "9", expected="4")
    assert registry.reserve("policy") == "policy-000009"
    registry.store.replace("next/policy", "-1", expected="10")
    assert registry.reserve("policy") == "policy-000004", "damaged: one is left out, which may have been given"
    registry.store.replace("next/reward", "damaged", expected=None)
    assert registry.reserve("reward") == "reward-000000"


def test_retired_and_refused_versions_keep_so_many_each(registry: Registry) -> None:
    names = [publish(registry) for _ in range(7)]
    for name in names[:4]:
        registry.promote(name)
    for name in names[4:]:
        registry.mark(name, "rejected", reason="the gate")
    assert registry.prune("policy", 2) == [names[4]]
    assert registry.prune("policy", 0) == [names[1], names[2], names[5], names[6]]
    assert [name for name in names if registry.has_weights(name)] == [names[0], names[3]]
    assert registry.prune("policy", 0) == [], "there is nothing left to delete"


def test_what_is_pinned_keeps_its_weights_and_pins_that_cannot_be_read_keep_all(registry: Registry) -> None:
    versions = [publish(registry) for _ in range(4)]
    for version in versions:
        registry.promote(version)
    pins.pin(registry.store, versions[1])
    registry.store.replace("pins", "{", expected=registry.store.read("pins"))
    assert registry.prune("policy", 0) == []
    pins.pin(registry.store, versions[1])
    assert registry.prune("policy", 0) == [versions[2]]
    assert pins.read(registry.store) == [versions[1]] and registry.has_weights(versions[1])
    pins.unpin(registry.store, versions[1])
    assert registry.prune("policy", 0) == [versions[1]]


@pytest.mark.parametrize("damaged", ["[]", "7", '"live"', "{}", '{"state": "well"}', '{"reason": ""}', " \n", "{"])
def test_what_is_no_record_of_a_state_is_a_failed_version_that_may_be_set_anew(
    registry: Registry, damaged: str
) -> None:
    version = publish(registry)
    key = f"states/{version}.json"
    registry.store.replace(key, damaged, expected=None)
    status = registry.status(version)
    assert status.state == "failed" and registry.store.place(key) in status.reason
    assert ("is empty" in status.reason) == (not damaged.strip())
    assert list(registry.damaged) == [key] and registry.damaged[key] == status.reason
    registry.mark(version, "candidate", reason="looked at")
    assert (registry.status(version).state, registry.damaged) == ("candidate", {})


def test_a_later_release_may_say_more_of_a_state(registry: Registry) -> None:
    version = publish(registry)
    registry.store.replace(f"states/{version}.json", '{"state": "retired", "colour": "red"}', expected=None)
    assert registry.status(version) == Status(state="retired")


def test_a_manifest_of_a_later_release_says_what_is_known_here_or_what_is_not(registry: Registry) -> None:
    """It may say more; of a tuning that nobody here can load nothing is guessed."""
    manifests = {
        "policy-000000": {"tuning": "full", "digest_of_votes": "0123"},
        "policy-000001": {"tuning": "dora"},
    }
    for version, said in manifests.items():
        values = {"version": version, "files": [], "probe": [], **said}
        manifest = json.dumps(values).encode()
        registry.store.put(version, registry.store.stage(version), lambda _, manifest=manifest: manifest)
    assert registry.verify("policy-000000").tuning == "full"
    with pytest.raises(VersionUnfit, match=r"policy-000001 is of tuning 'dora', which this release does not know"):
        registry.manifest("policy-000001")


@pytest.mark.parametrize("damaged", ["[]", "{}", "7", '["policy-000000", 7]', '"policy-000000"'])
def test_what_is_no_list_of_references_is_none(registry: Registry, damaged: str) -> None:
    version = publish(registry)
    registry.store.replace("references", damaged, expected=None)
    assert registry.references() == [version] and list(registry.damaged) == ["references"]


@pytest.mark.parametrize("damaged", ["[{}]", "[7]", "7", '[{"token_ids": [1, 2]}]'])
def test_what_is_no_probe_is_none(registry: Registry, damaged: str) -> None:
    version = publish(registry)
    key = f"probes/{version}.json"
    registry.store.replace(key, damaged, expected=None)
    assert registry.manifest(version).probe == () and list(registry.damaged) == [key]
    probe = (ProbeSequence(token_ids=(1, 2), logprobs=(-0.5,)),)
    registry.add_probe(version, probe)
    assert registry.manifest(version).probe == probe and registry.damaged == {}
    assert registry.manifest(version) is registry.manifest(version), "it never changes from now on"


@pytest.mark.parametrize("length", [99, 100, 101, 5000])
def test_a_pointer_that_names_no_version_gives_way_to_what_was_live_last(
    registry: Registry, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever stands there: a name that is too long for a file is none, and is told in part."""
    first, second = publish(registry), publish(registry)
    registry.promote(first)
    registry.promote(second)
    registry.store.replace("live/policy", "x" * length, expected=second)
    assert registry.live("policy") == second
    assert f"names '{'x' * min(length, 100)}', and no such version is there" in capsys.readouterr().out
    [said] = registry.damaged.values()
    assert f"{second} counts as live" in said
    registry.promote(first)
    assert registry.live("policy") == first and registry.damaged == {}


def test_a_name_that_is_no_versions_is_told_in_a_line() -> None:
    assert (kind_of("policy-000012"), kind_of("reward-123456789012")) == ("policy", "reward")
    for name in ("policy-12", "policy-1234567890123", "other-000012", "policy-000012 ", "Policy-000012"):
        with pytest.raises(UnknownVersion, match=f"'{name}' is no version name"):
            kind_of(name)
    with pytest.raises(UnknownVersion, match=f"^'{'x' * 40}' is no"):
        kind_of("x" * 50)
