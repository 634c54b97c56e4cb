"""What the files of weights say: which there are, whether they are whole, how their tensors are called. No torch."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_online.models.check import Finding
from rlhf_online.models.tensor_headers import BadHeader, Tensor, read_header
from rlhf_online.versions.weight_files import INDEX, SINGLE, BadIndex, other_weights, read_index, weight_files

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
FLOATS = ("F64", "F32", "F16", "BF16")
ADAPTER = "base_model.model."
"""What peft puts before the names of the base model's tensors."""
HEAD = "lm_head.weight"
COMPARED_BYTES = 1 << 24
AGAIN = "fetch or convert the model again"


def inspect_weights(folder: Path, config: dict[str, Any], *, needed: bool) -> Iterator[Finding]:
    """`needed`: an engine begins with these weights. What follows from another finding is not told."""
    try:
        files = weight_files(folder)
        others = other_weights(folder)
    except BadIndex as error:
        yield _refuse(f"holds a {INDEX} that {error}", AGAIN)
        return
    if not files:
        yield from _nothing(folder, needed=needed)
        return
    if absent := [path.name for path in files if not path.is_file()]:
        yield _refuse(f"lacks {absent[0]} ({len(absent)} of the {len(files)} files that its {INDEX} names)", AGAIN)
        return
    if (folder / INDEX).is_file() and (folder / SINGLE) in others:
        yield _refuse(f"holds {SINGLE} and a {INDEX} that names other files", "remove the one that is not the model")
        return
    if others:
        names = ", ".join(path.name for path in others)
        if needed and not (folder / INDEX).is_file():
            yield _refuse(f"holds {names} beside its weights, and no index that tells vLLM which to read", "remove it")
            return
        yield Finding("warn", "weights", f"holds {names} beside its weights", "it is ignored")
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            header = read_header(path)
        except BadHeader as error:
            yield _refuse(f"holds {path.name}, which is no safetensors file, or only a part of one (it {error})", AGAIN)
            return
        if twice := sorted(tensors.keys() & header.keys()):
            yield _refuse(f"holds {twice[0]} in two files", "remove the files that are not the model's")
            return
        tensors |= header
    yield from _tensors(folder, tensors, config)


def _nothing(folder: Path, *, needed: bool) -> Iterator[Finding]:
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        yield _refuse(
            f"holds its weights as {pickles[0]}, which is not read since it may run code",
            "write *.safetensors with transformers' save_pretrained",
        )
    elif packed := sorted(folder.glob("*.gguf")):
        yield _refuse(
            f"holds its weights as {packed[0].name}", "convert them to *.safetensors (transformers reads GGUF)"
        )
    elif needed:
        yield _refuse(
            "holds no *.safetensors, and a LoRA adapter needs a base",
            "convert the weights, or train all of them with --tuning full",
        )


def _tensors(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> Iterator[Finding]:
    if (folder / INDEX).is_file():
        lacking = sorted(read_index(folder / INDEX).keys() - tensors.keys())
        if lacking:
            yield _refuse(f"lacks the tensor {lacking[0]} ({len(lacking)} that its {INDEX} names)", AGAIN)
            return
    adapters = [name for name in tensors if ".lora_A." in name or ".lora_B." in name]
    if adapters:
        yield _refuse(
            f"holds an adapter beside the model's weights ({adapters[0]})",
            "merge it with peft's merge_and_unload, and save that",
        )
        return
    prefixed = [name for name in tensors if name.startswith(ADAPTER)]
    if prefixed:
        yield _refuse(
            f"names {len(prefixed)} of {len(tensors)} tensors as peft does ({prefixed[0]})",
            "save the model that peft's merge_and_unload returns, not the one around it",
        )
        return
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "an unknown method")
        yield _refuse(f"is quantised ({method}), and training needs plain weights", "take the unquantised model")
        return
    odd = sorted(name for name, tensor in tensors.items() if tensor.dtype not in FLOATS and tensor.shape)
    if odd:
        yield Finding(
            "warn",
            "weights",
            f"holds {odd[0]} ({len(odd)} such) in {tensors[odd[0]].dtype}, which is no float",
            "if it is a weight, take the unquantised model",
        )
    yield from _tied(tensors, config)


def _tied(tensors: dict[str, Tensor], config: dict[str, Any]) -> Iterator[Finding]:
    embeddings = [name for name in tensors if name.endswith(("embed_tokens.weight", "wte.weight"))]
    if not config.get("tie_word_embeddings") or HEAD not in tensors or len(embeddings) != 1:
        return
    if not _equal(tensors[HEAD], tensors[embeddings[0]]):
        yield _refuse(
            f"says tie_word_embeddings in config.json, and its {HEAD} is not {embeddings[0]}",
            "say false there if the head is the model's own, else remove the tensor",
        )


def _equal(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with one.file.open("rb") as first, other.file.open("rb") as second:
        with (
            mmap.mmap(first.fileno(), 0, access=mmap.ACCESS_READ) as a,
            mmap.mmap(second.fileno(), 0, access=mmap.ACCESS_READ) as b,
        ):
            size = one.end - one.start
            return all(
                a[one.start + at : one.start + min(at + COMPARED_BYTES, size)]
                == b[other.start + at : other.start + min(at + COMPARED_BYTES, size)]
                for at in range(0, size, COMPARED_BYTES)
            )


def _refuse(what: str, todo: str) -> Finding:
    return Finding("refuse", "weights", what, todo)
