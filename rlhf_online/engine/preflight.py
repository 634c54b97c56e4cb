"""Is a version fit to be loaded? Checked before the engine is touched, since vLLM accepts nearly anything.

A checkpoint that lacks tensors would serve new and old layers mixed, NaN weights would serve empty answers. So: every
file has the hash of the manifest and no file is there beside them; the tensors have the names, shapes and types of a
reference (the version that serves, or the base model), and the tokenizer is that of the base model; every value is
finite and of a weight's size. Needs numpy, neither torch nor pickle.

What is wrong with the version's bytes alone is VersionCorrupt: no pod may serve it. Where it only differs from what
this pod has (its model, its settings), it is VersionUnfit: the pod may be the one that is wrong.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rlhf_online.engine.reading import FLOATS, PIECE, Reading
from rlhf_online.errors import VersionCorrupt, VersionUnfit
from rlhf_online.models.tensor_headers import BadHeader, Tensor, read_header
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.weight_files import BadIndex, weight_files

HEAD = "lm_head.weight"
TOKENIZER = "tokenizer.json"
TOKENS = ("model", "added_tokens", "normalizer", "pre_tokenizer")
"""The parts of a tokenizer that say which text is which token."""


def check(registry: Registry, version: str, *, base: Path, reference: Path | None, max_lora_rank: int = 0) -> Manifest:
    """The version's manifest, if its files may be loaded.

    `reference` is a folder with the tensors that a full version must have (None: nothing to compare with);
    `base` the base model that an adapter belongs to. Raises UnknownVersion, VersionCorrupt or VersionUnfit.
    """
    reading = Reading()
    manifest = registry.verify(version, reading.digest)
    folder = registry.path(version)
    named = {item.path for item in manifest.files} | {"manifest.json"}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    if extra := sorted(found - named):
        raise VersionCorrupt(f"{version}: {extra[0]} is not in the manifest")
    if manifest.tuning == "lora":
        if manifest.files:
            check_lora(folder, base=base, max_rank=max_lora_rank, reading=reading)
    else:
        check_full(folder, reference=reference, base=base, reading=reading)
    check_tokenizer(folder, base=base)
    return manifest


def check_full(folder: Path, *, reference: Path | None, base: Path, reading: Reading) -> None:
    """Raises VersionCorrupt unless the folder's tensors are finite and there is a config, VersionUnfit unless they are
    those of `reference`.

    A tensor may be wider than the reference's (float32 where that has bfloat16): the engine narrows it. `base` is the
    folder that the engine was started on: if its files hold an output layer beside tied embeddings, then so must every
    version, since the engine has memory for both and would keep the old one.
    """
    if not (folder / "config.json").is_file():
        raise VersionCorrupt(f"{folder.name}: config.json is missing")
    tensors = read_headers(folder)
    if not tensors:
        raise VersionCorrupt(f"{folder.name}: no tensors in *.safetensors")
    expected = None
    if reference is not None:
        expected, tied = own_headers(reference), is_tied(folder)
        compare(folder.name, tensors, expected, optional={HEAD} if tied and HEAD not in own_headers(base) else set())
        if tied:
            check_tied(folder.name, tensors, expected)
    check_values(folder.name, tensors, expected, reading)


def check_lora(folder: Path, *, base: Path, max_rank: int, reading: Reading) -> None:
    """Raises VersionCorrupt unless the folder is a peft adapter, VersionUnfit unless its rank is ≤ `max_rank` and it
    fits the base model."""
    try:
        rank = int(json.loads((folder / "adapter_config.json").read_text())["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VersionCorrupt(f"{folder.name}: adapter_config.json cannot be read ({error!r})") from error
    if rank > max_rank:
        raise VersionUnfit(f"{folder.name}: rank {rank} is more than engine.max_lora_rank = {max_rank}")
    tensors, base_tensors = read_headers(folder), own_headers(base)
    if not tensors:
        raise VersionCorrupt(f"{folder.name}: no tensors in *.safetensors")
    for name, tensor in tensors.items():
        module, side = _lora_side(folder.name, name)
        if f"{module}.{_OTHER[side]}.weight" not in tensors:
            raise VersionCorrupt(f"{folder.name}: {name} has no counterpart {_OTHER[side]}")
        weight = base_tensors.get(module.removeprefix("base_model.model.") + ".weight")
        if weight is None or len(weight.shape) != 2:
            raise VersionUnfit(f"{folder.name}: {name} belongs to no matrix of the base model")
        expected = (rank, weight.shape[1]) if side == "lora_A" else (weight.shape[0], rank)
        if tensor.shape != expected:
            raise VersionUnfit(f"{folder.name}: {name} has shape {tensor.shape}, expected {expected}")
        if tensor.dtype not in FLOATS:
            raise VersionCorrupt(f"{folder.name}: {name} has type {tensor.dtype}, expected a float")
    check_values(folder.name, tensors, {}, reading)


_OTHER = {"lora_A": "lora_B", "lora_B": "lora_A"}


def _lora_side(version: str, name: str) -> tuple[str, str]:
    for side in _OTHER:
        if name.endswith(f".{side}.weight"):
            return name.removesuffix(f".{side}.weight"), side
    raise VersionCorrupt(f"{version}: {name} is no tensor of a LoRA adapter")


def compare(version: str, tensors: dict[str, Tensor], expected: dict[str, Tensor], *, optional: set[str]) -> None:
    """Names, shapes and types. Raises VersionUnfit."""
    if missing := sorted(expected.keys() - tensors.keys() - optional):
        raise VersionUnfit(f"{version}: {missing[0]} is missing ({len(missing)} of {len(expected)} tensors)")
    if extra := sorted(tensors.keys() - expected.keys() - optional):
        raise VersionUnfit(f"{version}: {extra[0]} is no tensor of this model ({len(extra)} such)")
    for name in tensors.keys() & expected.keys():
        got, wanted = tensors[name], expected[name]
        if got.shape != wanted.shape:
            raise VersionUnfit(f"{version}: {name} has shape {got.shape}, expected {wanted.shape}")
        if got.dtype != wanted.dtype and not (got.dtype == "F32" and wanted.dtype in ("F16", "BF16")):
            raise VersionUnfit(f"{version}: {name} has type {got.dtype}, expected {wanted.dtype}")


def check_tied(version: str, tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raises VersionUnfit for an output layer that is not the embedding, as config.json says it is.

    The model with the tensors `expected` may have one itself: then it is untied, whatever its config says, and
    transformers and vLLM both take it so.
    """
    if HEAD in tensors and not is_copy(HEAD, tensors) and (HEAD not in expected or is_copy(HEAD, expected)):
        raise VersionUnfit(f"{version}: {HEAD} is not the embedding, though config.json ties them")


def is_copy(name: str, tensors: dict[str, Tensor]) -> bool:
    """Whether another tensor has the same bytes."""
    own = tensors[name]
    others = [other for key, other in tensors.items() if key != name]
    return any((other.dtype, other.shape) == (own.dtype, own.shape) and same_bytes(own, other) for other in others)


def same_bytes(one: Tensor, other: Tensor) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(chunks(one), chunks(other), strict=True))


def is_tied(folder: Path) -> bool:
    """Whether the model's output layer is its embedding. Raises VersionCorrupt for a config that is no JSON object."""
    try:
        return bool(json.loads((folder / "config.json").read_text()).get("tie_word_embeddings", False))
    except (ValueError, AttributeError) as error:
        raise VersionCorrupt(f"{folder.name}: config.json cannot be read ({error})") from error


def check_tokenizer(folder: Path, *, base: Path) -> None:
    """Raises VersionUnfit for a version whose tokenizer gives other tokens than the base model's.

    The engine reads text with the tokenizer that it was started with, so the weights would be asked in tokens that they
    were not trained on, and no probe of token ids would show it. A version without a tokenizer was trained with the
    base's.
    """
    if not (folder / TOKENIZER).is_file() or not (base / TOKENIZER).is_file():
        return
    own, expected = _tokens(folder / TOKENIZER), _tokens(base / TOKENIZER)
    if differ := [part for part, said in expected.items() if own[part] != said]:
        raise VersionUnfit(f"{folder.name}: {TOKENIZER} is not that of the base model: another {differ[0]!r}")


def _tokens(path: Path) -> dict[str, object]:
    """Raises VersionCorrupt for what is no tokenizer."""
    try:
        values = json.loads(path.read_text())
        return {part: values.get(part) for part in TOKENS}
    except (ValueError, AttributeError) as error:
        raise VersionCorrupt(f"{path.parent.name}: {path.name} cannot be read ({error})") from error


def check_values(
    version: str, tensors: dict[str, Tensor], reference: dict[str, Tensor] | None, reading: Reading
) -> None:
    """Raises VersionCorrupt for the first tensor with a NaN or an infinity, or with a value beyond any weight's size.

    A tensor may be as large as that where the one in `reference` is (masks are kept among weights); without a
    reference (None) nothing is known of sizes.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            continue
        largest, (_, infinite, _) = reading.largest(tensor), FLOATS[tensor.dtype]
        if largest == infinite:
            raise VersionCorrupt(f"{version}: {name} holds a value that is not finite")
        if reference is not None and is_huge(tensor, largest):
            known = reference.get(name)
            if known is None or not is_huge(known, reading.largest(known)):
                raise VersionCorrupt(f"{version}: {name} holds a value of 2**20 or more, as no model's weights have")


def is_huge(tensor: Tensor, exponent: int) -> bool:
    return tensor.dtype in FLOATS and exponent >= FLOATS[tensor.dtype][2]


def chunks(tensor: Tensor) -> Iterator[np.ndarray]:
    """The tensor's bytes, PIECE at a time."""
    count = tensor.end - tensor.start
    values = np.memmap(tensor.file, dtype="u1", mode="r", offset=tensor.start, shape=(count,)) if count else np.empty(0)
    for start in range(0, count, PIECE):
        yield values[start : start + PIECE]


def own_headers(folder: Path) -> dict[str, Tensor]:
    """Those of a folder that the version is compared with. Raises VersionUnfit where that one is damaged."""
    try:
        return read_headers(folder)
    except VersionCorrupt as error:
        raise VersionUnfit(f"there is nothing to compare it with: {error}") from error


def read_headers(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the folder's weights by name. Raises VersionCorrupt for a file that is damaged or not there."""
    tensors: dict[str, Tensor] = {}
    try:
        files = weight_files(folder)
    except BadIndex as error:
        raise VersionCorrupt(f"{folder.name}: the index of its weights {error}") from error
    for path in files:
        try:
            header = read_header(path)
        except OSError as error:
            raise VersionCorrupt(f"{folder.name}: {path.name} cannot be read ({error})") from error
        except BadHeader as error:
            raise VersionCorrupt(f"{folder.name}: {path.name} {error}") from error
        for name, tensor in header.items():
            if name in tensors:
                raise VersionCorrupt(f"{folder.name}: {name} stands in two files")
            tensors[name] = tensor
    return tensors
