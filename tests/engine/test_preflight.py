"""Each corruption of a version is refused with its reason, before any engine is asked."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rlhf_online.engine import preflight
from rlhf_online.engine.reading import PIECE, Reading
from rlhf_online.errors import VersionCorrupt
from rlhf_online.models.tensor_headers import SIZES, Tensor
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry

Tensors = dict[str, np.ndarray]
NORM, HEAD = "model.norm.weight", "lm_head.weight"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_tiny_model(tmp_path / "base", weights_seed=1)
    return tmp_path / "base"


def publish(
    registry: Registry, change: Callable[[Tensors], None] | None = None, rewrite: Callable[[Path], None] | None = None
) -> str:
    """A version whose tensors, or whose weights file, were changed before it was published: its hashes are right."""
    version = registry.reserve("policy")
    staged = registry.stage(version)
    write_tiny_model(staged, weights_seed=2)
    weights = staged / "model.safetensors"
    if change is not None:
        tensors = load_file(weights)
        change(tensors)
        save_file(tensors, weights)
    if rewrite is not None:
        rewrite(weights)
    registry.publish(Manifest(version=version, tuning="full"))
    return version


def set_value(name: str, value: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name].flat[-1] = value

    return change


def cut(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-100])


def grow(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes() + b"\0" * 8)


def garbage(weights: Path) -> None:
    weights.write_bytes((16).to_bytes(8, "little") + b"not json at all!")


def huge_header(weights: Path) -> None:
    weights.write_bytes(b"\xff" * 8 + weights.read_bytes()[8:])


def misindex(weights: Path) -> None:
    weights.with_name("model.safetensors.index.json").write_text('{"weight_map": {}}')


def overlap(weights: Path) -> None:
    content = weights.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[NORM]["data_offsets"] = [0, 256]
    encoded = json.dumps(header).encode()
    weights.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + length :])


def test_a_sound_version_passes(registry: Registry, base: Path) -> None:
    version = publish(registry)
    assert preflight.check(registry, version, base=base, reference=base).version == version
    preflight.check(registry, version, base=base, reference=None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda t: t.pop(NORM), f"{NORM} is missing", id="missing"),
        pytest.param(lambda t: t.update(more=np.zeros(3, np.float32)), "more is no tensor of this model", id="extra"),
        pytest.param(lambda t: t.update({"renamed": t.pop(NORM)}), f"{NORM} is missing", id="renamed"),
        pytest.param(lambda t: t.update({NORM: t[NORM][:-1]}), "has shape", id="shape"),
        pytest.param(lambda t: t.update({HEAD: t[HEAD].T.copy()}), "has shape", id="transposed"),
        pytest.param(lambda t: t.update({NORM: t[NORM].astype(np.float16)}), "has type F16, expected F32", id="half"),
        pytest.param(lambda t: t.update({NORM: t[NORM].astype(np.int32)}), "has type I32, expected F32", id="integer"),
        pytest.param(set_value(NORM, np.nan), f"{NORM} holds a value that is not finite", id="nan"),
        pytest.param(set_value(HEAD, np.inf), f"{HEAD} holds a value that is not finite", id="inf"),
        pytest.param(set_value(HEAD, -np.inf), f"{HEAD} holds a value that is not finite", id="minus inf"),
    ],
)
def test_tensors_that_do_not_fit(
    registry: Registry, base: Path, change: Callable[[Tensors], None], reason: str
) -> None:
    version = publish(registry, change)
    with pytest.raises(VersionCorrupt, match=reason):
        preflight.check(registry, version, base=base, reference=base)


@pytest.mark.parametrize(
    ("rewrite", "reason"),
    [
        (cut, "bytes long, its header describes"),
        (grow, "bytes long, its header describes"),
        (garbage, "no readable header"),
        (huge_header, "cut short"),
        (overlap, "describes .* wrongly"),
        (misindex, "the index of its weights cannot be read .*names no files"),
        (Path.unlink, "no tensors"),
    ],
)
def test_files_that_are_damaged(registry: Registry, base: Path, rewrite: Callable[[Path], None], reason: str) -> None:
    version = publish(registry, rewrite=rewrite)
    with pytest.raises(VersionCorrupt, match=reason):
        preflight.check(registry, version, base=base, reference=base)


def test_one_changed_byte(registry: Registry, base: Path) -> None:
    version = publish(registry)
    weights = registry.path(version) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-7] ^= 1
    weights.write_bytes(content)
    with pytest.raises(VersionCorrupt, match="SHA-256"):
        preflight.check(registry, version, base=base, reference=base)


@pytest.mark.parametrize("name", ["model-00002.safetensors", "pytorch_model.bin"])
def test_a_file_beside_the_manifest_is_refused(registry: Registry, base: Path, name: str) -> None:
    """vLLM would load every weights file that lies there."""
    version = publish(registry)
    (registry.path(version) / name).write_bytes(b"")
    with pytest.raises(VersionCorrupt, match="not in the manifest"):
        preflight.check(registry, version, base=base, reference=base)


FINITE = {"F64": 0x7FEFFFFFFFFFFFFF, "F32": 0x7F7FFFFF, "F16": 0x7BFF, "BF16": 0x7F7F}
"""The bits of each type's largest value: one more is infinity."""


@pytest.mark.parametrize("kind", FINITE)
@pytest.mark.parametrize("change", ["infinity", "minus infinity", "NaN"])
def test_every_type_is_looked_at_by_its_bits(tmp_path: Path, kind: str, change: str) -> None:
    bits = 8 * SIZES[kind]
    value = FINITE[kind] + {"infinity": 1, "minus infinity": 1 + (1 << bits - 1), "NaN": 2}[change]
    write_bits(tmp_path, kind, [1, FINITE[kind], 0])
    check_full(tmp_path)
    write_bits(tmp_path, kind, [1, value, 0])
    with pytest.raises(VersionCorrupt, match="w holds a value that is not finite"):
        check_full(tmp_path)


HUGE = {"F64": 0x4130000000000000, "F32": 0x49800000, "BF16": 0x4980}
"""The bits of 2**20."""


@pytest.mark.parametrize("kind", HUGE)
def test_no_weight_is_huge_unless_the_reference_has_such(tmp_path: Path, kind: str) -> None:
    """A flipped bit of an exponent; or a mask that is kept among the weights."""
    version, reference = tmp_path / "version", tmp_path / "reference"
    version.mkdir()
    reference.mkdir()
    write_bits(reference, kind, [0, 1, HUGE[kind] - 1])
    write_bits(version, kind, [0, HUGE[kind] - 1, 0])
    check_full(version, reference)
    write_bits(version, kind, [0, HUGE[kind] | 1 << 8 * SIZES[kind] - 1, 0])
    with pytest.raises(VersionCorrupt, match=r"w holds a value of 2\*\*20 or more"):
        check_full(version, reference)
    write_bits(reference, kind, [0, 1, HUGE[kind]])
    check_full(version, reference)
    check_full(version)


@pytest.mark.parametrize("place", [0, PIECE - 1, PIECE, -1])
def test_every_value_is_looked_at(tmp_path: Path, place: int) -> None:
    values = np.zeros(2 * PIECE + 3, np.uint16)
    values[place] = FINITE["BF16"] + 1
    write_bits(tmp_path, "BF16", values)
    with pytest.raises(VersionCorrupt, match="not finite"):
        check_full(tmp_path)


def test_a_tensor_without_values_is_fine(tmp_path: Path) -> None:
    write_bits(tmp_path, "F32", [])
    check_full(tmp_path)


def write_bits(folder: Path, kind: str, bits: Sequence[int] | np.ndarray) -> None:
    size = SIZES[kind]
    entry = {"dtype": kind, "shape": [len(bits)], "data_offsets": [0, size * len(bits)]}
    header = json.dumps({"w": entry}).encode()
    content = len(header).to_bytes(8, "little") + header + np.asarray(bits, f"<u{size}").tobytes()
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.json").write_text("{}")


def check_full(folder: Path, reference: Path | None = None, base: Path | None = None) -> None:
    """The engine was started on `reference` unless `base` is given."""
    preflight.check_full(folder, reference=reference, base=base or reference or folder, reading=Reading())


def test_float32_may_stand_for_bfloat16(tmp_path: Path) -> None:
    """A trainer that computes in float32 may say so; the engine narrows."""
    narrow, wide = tmp_path / "narrow", tmp_path / "wide"
    narrow.mkdir()
    wide.mkdir()
    write_bits(narrow, "BF16", [0x3F80])
    save_file({"w": np.ones(1, np.float32)}, wide / "model.safetensors")
    (wide / "config.json").write_text("{}")
    check_full(wide, narrow)
    with pytest.raises(VersionCorrupt, match="type BF16"):
        check_full(narrow, wide)


@pytest.mark.parametrize("wanted", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("got", ["F64", "F32", "F16", "BF16"])
def test_no_other_type_stands_for_another(got: str, wanted: str) -> None:
    one, other = ({"w": Tensor(Path("x"), dtype, (2, 3), 0, 8)} for dtype in (got, wanted))
    if got == wanted or (got == "F32" and wanted in ("F16", "BF16")):
        preflight.compare("v", one, other, optional=set())
    else:
        with pytest.raises(VersionCorrupt, match=f"v: w has type {got}, expected {wanted}"):
            preflight.compare("v", one, other, optional=set())


def model(folder: Path, *, tied: bool | None = True, head: float | None = None) -> Path:
    """An embedding of ones, and an output layer of `head`s; `tied` is None in a config that does not say it."""
    folder.mkdir()
    tensors = {"embed": np.ones((3, 2), np.float32), "other": np.zeros((3, 2), np.float32)}
    if head is not None:
        tensors[HEAD] = np.full((3, 2), head, np.float32)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({} if tied is None else {"tie_word_embeddings": tied}))
    return folder


@pytest.mark.parametrize(
    ("tied", "base", "version", "reason"),
    [
        pytest.param(True, None, None, "", id="left out as in the base"),
        pytest.param(True, None, 1.0, "", id="a copy that the base has not"),
        pytest.param(True, None, 2.0, "is not the embedding, though config.json ties them", id="untied though tied"),
        pytest.param(True, 1.0, 1.0, "", id="a copy as in the base"),
        pytest.param(True, 1.0, None, "is missing", id="an engine on this base would keep the old one"),
        pytest.param(True, 1.0, 2.0, "is not the embedding, though config.json ties them", id="no copy any more"),
        pytest.param(True, 3.0, 2.0, "", id="the base itself is untied in truth"),
        pytest.param(True, 3.0, None, "is missing", id="untied in truth and left out"),
        pytest.param(False, 3.0, 2.0, "", id="untied"),
        pytest.param(False, 3.0, None, "is missing", id="untied and left out"),
        pytest.param(False, None, 1.0, "is no tensor of this model", id="untied without an output layer"),
        pytest.param(None, 1.0, 2.0, "", id="a config that says nothing ties nothing"),
    ],
)
def test_the_output_layer_of_tied_embeddings(
    tmp_path: Path, tied: bool | None, base: float | None, version: float | None, reason: str
) -> None:
    known = model(tmp_path / "base", tied=tied, head=base)
    folder = model(tmp_path / "version", tied=tied, head=version)
    if not reason:
        check_full(folder, known)
        return
    with pytest.raises(VersionCorrupt, match=f"version: {HEAD} {reason}"):
        check_full(folder, known)


@pytest.mark.parametrize("config", ["", "no JSON", "[]"])
def test_a_config_that_cannot_be_read_is_refused(tmp_path: Path, config: str) -> None:
    known, folder = model(tmp_path / "base"), model(tmp_path / "version")
    (folder / "config.json").write_text(config)
    with pytest.raises(VersionCorrupt, match=r"version: config\.json cannot be read"):
        check_full(folder, known)


@pytest.mark.parametrize("changed", [0, 7, 8, 16])
def test_a_copy_is_one_to_its_last_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: int) -> None:
    """Also where it is looked at in several goes."""
    monkeypatch.setattr(preflight, "PIECE", 8)
    values = np.arange(17, dtype=np.uint8)
    other = values.copy()
    other[changed] += 1
    save_file({"a": values, "b": values.copy(), "c": other}, tmp_path / "model.safetensors")
    tensors = preflight.read_headers(tmp_path)
    assert preflight.same_bytes(tensors["a"], tensors["b"])
    assert not preflight.same_bytes(tensors["a"], tensors["c"])


def test_an_engine_on_a_folder_without_weights_ties_what_the_config_ties(tmp_path: Path) -> None:
    """Such as begins with supervised fine-tuning; the first version is what others are compared with."""
    base, first = model(tmp_path / "base"), model(tmp_path / "first", head=1.0)
    (base / "model.safetensors").unlink()
    check_full(model(tmp_path / "next"), first, base)


PREFIX = "base_model.model.model.layers.0.self_attn.q_proj"


def adapter(registry: Registry, changes: dict[str, np.ndarray | None] | None = None) -> str:
    rank = 4
    version = registry.reserve("policy")
    staged = registry.stage(version)
    tensors: dict[str, np.ndarray | None] = {
        f"{PREFIX}.lora_A.weight": np.ones((rank, 64), np.float32),
        f"{PREFIX}.lora_B.weight": np.zeros((64, rank), np.float32),
    }
    tensors |= {f"{PREFIX}.{side}.weight": value for side, value in (changes or {}).items()}
    save_file({k: v for k, v in tensors.items() if v is not None}, staged / "adapter_model.safetensors")
    (staged / "adapter_config.json").write_text(json.dumps({"r": rank}))
    registry.publish(Manifest(version=version, tuning="lora"))
    return version


def test_a_sound_adapter_passes(registry: Registry, base: Path) -> None:
    version = adapter(registry)
    manifest = preflight.check(registry, version, base=base, reference=None, max_lora_rank=4)
    assert (manifest.version, len(manifest.files)) == (version, 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lora_B": None}, "no counterpart lora_B"),
        ({"lora_A": None}, "no counterpart lora_A"),
        ({"lora_A": np.ones((4, 63), np.float32)}, "expected \\(4, 64\\)"),
        ({"lora_B": np.ones((64, 3), np.float32)}, "expected \\(64, 4\\)"),
        ({"lora_B": np.full((64, 4), np.nan, np.float32)}, "not finite"),
        ({"lora_B": np.ones((64, 4), np.int32)}, "expected a float"),
        ({"magnitude": np.ones(64, np.float32)}, "no tensor of a LoRA adapter"),
    ],
)
def test_adapters_that_do_not_fit(
    registry: Registry, base: Path, changes: dict[str, np.ndarray | None], reason: str
) -> None:
    with pytest.raises(VersionCorrupt, match=reason):
        preflight.check(registry, adapter(registry, changes), base=base, reference=None, max_lora_rank=4)


def test_an_adapter_of_too_high_a_rank(registry: Registry, base: Path) -> None:
    with pytest.raises(VersionCorrupt, match="rank 4 is more than"):
        preflight.check(registry, adapter(registry), base=base, reference=None, max_lora_rank=3)


def test_the_adapterless_version_needs_no_file(registry: Registry, base: Path) -> None:
    version = registry.reserve("policy")
    registry.stage(version)
    registry.publish(Manifest(version=version, tuning="lora"))
    assert preflight.check(registry, version, base=base, reference=None).files == ()
