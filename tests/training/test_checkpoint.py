"""Checkpoints: there wholly or not at all, verified, and one behind the other."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch

from rlhf_online.errors import CheckpointError
from rlhf_online.eventlog.gap import Place
from rlhf_online.training.checkpoint import CheckpointPart, Checkpoints

PLACE = Place("a log", {})


class Alone:
    """The lease where there is no other trainer."""

    epoch = 4

    def check(self) -> None:
        pass

    def guard(self) -> AbstractContextManager[None]:
        return nullcontext()


def part(value: float) -> CheckpointPart:
    return CheckpointPart(
        {"w": torch.full((3, 2), value), "half": torch.arange(8.0).reshape(2, 4).T}, {"updates": int(value)}
    )


def saved(folder: Path, *numbers: int, keep: int = 3) -> Checkpoints:
    """A checkpoint a number: part "policy" new each time, part "reward" of the first."""
    checkpoints = Checkpoints(folder, keep, Alone())
    for number in numbers:
        reward = part(0) if number == numbers[0] else None
        checkpoints.save(
            {"n": number},
            {"policy": part(number), "reward": reward, "list": CheckpointPart({}, {"n": number})},
            {},
            Place("a log", {"local": number}),
        )
    return checkpoints


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def unmendable(folder: Path) -> None:
    for path in folder.rglob("*.parity"):
        path.unlink()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".parity")


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    saved(tmp_path, 7)
    checkpoint = Checkpoints(tmp_path, 3).load()
    assert checkpoint is not None
    assert checkpoint.state == {"n": 7}
    policy = checkpoint.part("policy")
    assert policy.values == {"updates": 7}
    assert torch.equal(policy.tensors["w"], torch.full((3, 2), 7.0))
    assert torch.equal(policy.tensors["half"], torch.arange(8.0).reshape(2, 4).T)
    assert checkpoint.part("list") == CheckpointPart({}, {"n": 7})


@pytest.mark.parametrize(("file", "content"), [("list.json", None), ("list.json", "{"), ("policy.safetensors", "w")])
def test_a_part_that_cannot_be_read_any_more_is_named(tmp_path: Path, file: str, content: str | None) -> None:
    """The disk may fail between the check of all files and the reading of one."""
    checkpoint = saved(tmp_path, 7).load()
    assert checkpoint is not None
    (checkpoint.folder / file).unlink()
    if content is not None:
        (checkpoint.folder / file).write_text(content)
    name = file.partition(".")[0]
    with pytest.raises(CheckpointError, match=f"part {name} of checkpoint {checkpoint.folder} cannot be read"):
        checkpoint.part(name)


def test_tensors_that_share_memory_are_kept_each_for_itself(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    tensors = {"a": whole, "b": whole, "c": whole, "part": whole[2:4], "end": torch.arange(9.0)[5:]}
    Checkpoints(tmp_path, 3, Alone()).save({}, {"policy": CheckpointPart(tensors, {})}, {}, Place("a log", {}))
    checkpoint = Checkpoints(tmp_path, 3).load()
    assert checkpoint is not None
    found = checkpoint.part("policy").tensors
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in tensors.items()
    }


def test_what_was_mended_is_told_and_what_could_not_be_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, 7, 8)
    flip(tmp_path / "000001" / "policy.json")
    assert Checkpoints(tmp_path, 3).load() is not None
    assert capsys.readouterr().out.count("was damaged, and was mended") == 1
    flip(tmp_path / "000001" / "policy.json")
    (tmp_path / "000001" / "policy.json.parity").unlink()
    assert Checkpoints(tmp_path, 3).load() is not None
    assert "was mended" not in capsys.readouterr().out


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "nothing", 3).load() is None


def test_an_unchanged_part_is_linked_and_loads(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    one, two = tmp_path / "000000" / "reward.safetensors", tmp_path / "000001" / "reward.safetensors"
    assert one.stat().st_ino == two.stat().st_ino
    parities = [path.with_name(f"{path.name}.parity") for path in (one, two)]
    assert parities[0].stat().st_ino == parities[1].stat().st_ino, "not made anew of what may be damaged by now"
    checkpoint = Checkpoints(tmp_path, 3).load()
    assert checkpoint is not None
    assert checkpoint.part("reward").values == {"updates": 0}
    again = Checkpoints(tmp_path, 3, Alone())
    again.load()
    assert again.save({"n": 3}, {"policy": None, "reward": None}, {}, PLACE).part("policy").values == {"updates": 2}


def test_only_the_newest_are_kept_and_each_stands_alone(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3, 4, 5, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003", "000004"]
    checkpoint = Checkpoints(tmp_path, 2).load()
    assert checkpoint is not None
    assert torch.equal(checkpoint.part("reward").tensors["w"], torch.zeros(3, 2))


@pytest.mark.parametrize("name", ["policy.safetensors", "policy.json", "reward.safetensors", "reward.json"])
@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:10])])
def test_a_damaged_part_is_mended_also_where_all_checkpoints_share_it(
    tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    saved(tmp_path, 1, 2, 3)
    whole = (tmp_path / "000002" / name).read_bytes()
    damage(tmp_path / "000002" / name)
    checkpoints = Checkpoints(tmp_path, 3, Alone())
    assert (found := checkpoints.load()) is not None and found.state == {"n": 3}
    assert (tmp_path / "000002" / name).read_bytes() == whole
    checkpoints.save({"n": 4}, {"policy": None, "reward": None}, {}, PLACE)
    flip(tmp_path / "000003" / name)
    assert (found := Checkpoints(tmp_path, 3).load()) is not None and found.state == {"n": 4}, (
        "carried on with its parity"
    )


def test_a_state_of_a_release_without_parity_gets_it_with_the_next_save(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    for path in tmp_path.rglob("*.parity"):
        path.unlink()
    checkpoints = Checkpoints(tmp_path, 3, Alone())
    checkpoints.load()
    checkpoints.save({"n": 2}, {"policy": None, "reward": None}, {}, PLACE)
    flip(tmp_path / "000001" / "policy.safetensors")
    assert (found := Checkpoints(tmp_path, 3).load()) is not None and found.state == {"n": 2}


@pytest.mark.parametrize("name", ["state.json", "policy.safetensors", "policy.json", "list.json", "manifest.json"])
def test_a_flipped_bit_that_nothing_mends_falls_back_to_the_one_before(tmp_path: Path, name: str) -> None:
    saved(tmp_path, 1, 2)
    flip(tmp_path / "000001" / name)
    unmendable(tmp_path)
    checkpoints = Checkpoints(tmp_path, 3, Alone())
    checkpoint = checkpoints.load()
    assert checkpoint is not None
    assert checkpoint.state == {"n": 1}
    # The next one gets a number of its own and is the newest.
    assert checkpoints.save({"n": 9}, {"policy": None}, {}, PLACE).number == 2
    newest = Checkpoints(tmp_path, 3).load()
    assert newest is not None
    assert newest.state == {"n": 9}
    assert newest.part("policy").values == {"updates": 1}


def test_a_missing_file_falls_back(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    (tmp_path / "000001" / "policy.safetensors").unlink()
    unmendable(tmp_path)
    checkpoint = Checkpoints(tmp_path, 3).load()
    assert checkpoint is not None
    assert checkpoint.number == 0


def test_a_damaged_ledger_segment_falls_back(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "a").write_text("first")
    checkpoints = Checkpoints(tmp_path, 3, Alone())
    checkpoints.save({"n": 1}, {}, {"ledger": ["a"]}, PLACE)
    (tmp_path / "ledger" / "b").write_text("second")
    checkpoints.save({"n": 2}, {}, {"ledger": ["a", "b"]}, PLACE)
    flip(tmp_path / "ledger" / "b")
    unmendable(tmp_path)
    checkpoint = Checkpoints(tmp_path, 3).load()
    assert checkpoint is not None
    assert checkpoint.sealed == {"ledger": ("a",), "answers": ()}


def test_sealed_files_stay_for_as_long_as_a_checkpoint_names_them(tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    checkpoints = Checkpoints(tmp_path, 2, Alone())
    for number in range(4):
        (tmp_path / "answers" / f"{number}").write_text("an answer")
        checkpoints.save({"n": number}, {}, {"answers": [f"{number}"]}, PLACE)
    assert names(tmp_path / "answers") == ["2", "3"]
    assert {path.name for path in (tmp_path / "answers").iterdir()} == {"2", "3", "2.parity", "3.parity"}


@pytest.mark.parametrize("manifest", ["", "{", "[]", "{}", '{"answers": {}}'])
def test_no_sealed_file_goes_while_a_manifest_does_not_say_what_it_needs(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "answers").mkdir()
    checkpoints = Checkpoints(tmp_path, 2, Alone())
    for number in range(2):
        (tmp_path / "answers" / f"{number}").write_text("an answer")
        checkpoints.save({"n": number}, {}, {"answers": [f"{number}"]}, PLACE)
    (tmp_path / "000001" / "manifest.json").write_text(manifest)
    (tmp_path / "answers" / "2").write_text("an answer")
    checkpoints.save({"n": 2}, {}, {"answers": ["2"]}, PLACE)
    assert names(tmp_path) == ["000001", "000002", "answers"]
    assert names(tmp_path / "answers") == ["0", "1", "2"], "1 may be brought back, with its manifest"
    (tmp_path / "answers" / "3").write_text("an answer")
    checkpoints.save({"n": 3}, {}, {"answers": ["3"]}, PLACE)
    assert names(tmp_path / "answers") == ["2", "3"], "what could not be read is gone"


def test_none_that_is_good_is_an_error_not_a_new_start(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    for number in ("000000", "000001"):
        flip(tmp_path / number / "policy.safetensors")
    unmendable(tmp_path)
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        Checkpoints(tmp_path, 3).load()


def test_a_save_that_was_cut_short_is_ignored_and_cleared_away(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / "000001").mkdir()
    (tmp_path / "000001" / "state.json").write_text("{")
    (tmp_path / "000001" / "manifest.json.tmp").write_text("{")
    checkpoints = Checkpoints(tmp_path, 3, Alone())
    checkpoint = checkpoints.load()
    assert checkpoint is not None
    assert checkpoint.number == 0
    checkpoints.save({"n": 2}, {"policy": None}, {}, PLACE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000", "000002"]


def test_the_manifest_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever fsync a save ends, what is found afterwards is the old checkpoint or the new one."""
    real, found = os.fsync, set()

    class Cut(BaseException):
        pass

    for fatal in range(1, 30):
        folder = tmp_path / str(fatal)
        checkpoints, calls = saved(folder, 1), 0

        def fsync(descriptor: int, fatal: int = fatal) -> None:
            nonlocal calls
            calls += 1
            if calls == fatal:
                raise Cut
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        try:
            checkpoints.save({"n": 2}, {"policy": part(2), "reward": None}, {}, PLACE)
            done = True
        except Cut:
            done = False
        monkeypatch.setattr(os, "fsync", real)
        checkpoint = Checkpoints(folder, 3).load()
        assert checkpoint is not None
        assert checkpoint.part("policy").values == {"updates": checkpoint.state["n"]}
        found.add((checkpoint.state["n"], done))
        if done:
            break
    assert found == {(1, False), (2, False), (2, True)}


def test_a_full_disk_is_said_and_the_save_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = saved(tmp_path, 1)
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*free disk space"):
        checkpoints.save({"n": 2}, {"policy": part(2)}, {}, PLACE)
    monkeypatch.setattr(os, "fsync", real)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000"]
    checkpoints.save({"n": 2}, {"policy": part(2)}, {}, PLACE)
    checkpoint = Checkpoints(tmp_path, 3).load()
    assert checkpoint is not None
    assert checkpoint.state == {"n": 2}


def test_what_cannot_be_made_or_cleared_away_is_no_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match=r"file/000000 cannot be written \(.*free disk space, or mend the disk"):
        Checkpoints(tmp_path / "file", 3, Alone()).save({"n": 1}, {}, {}, PLACE)
    folder = tmp_path / "checkpoints"
    checkpoints = saved(folder, 1)
    (folder / "000007").symlink_to(tmp_path)  # somebody's, and it is not taken away
    checkpoints.save({"n": 2}, {"policy": None}, {}, PLACE)
    assert (folder / "000007").is_symlink() and (found := checkpoints.load()) and found.state == {"n": 2}


def test_equal_states_have_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        saved(tmp_path / name, 1)
    manifests = [json.loads((tmp_path / name / "000000" / "manifest.json").read_text()) for name in ("a", "b")]
    assert manifests[0] == manifests[1]
    assert len(manifests[0]["files"]) == 6


def test_the_log_is_needed_from_the_oldest_checkpoint_on(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, 3).position() == {}
    checkpoints = saved(tmp_path, 10, 20, 30, 40)
    assert checkpoints.position() == {"local": 20}, "three are kept"
    (tmp_path / "000009").mkdir()  # the remains of a save that was cut short
    assert checkpoints.position() == {"local": 20}
    (tmp_path / "000002" / "manifest.json").write_text("{}")
    assert checkpoints.position() == {}, "who knows what it needs"
