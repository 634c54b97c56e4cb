"""Which files of a model folder hold its weights. Reads small JSON files only.

What the index names, else `model.safetensors`, else every *.safetensors: as transformers and vLLM choose. Mistral ships
the same weights a second time, under other names, in `consolidated.safetensors`; whoever took every file would expect
both sets of tensors of each later version.
"""

import json
from pathlib import Path

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class BadIndex(ValueError):
    """The index cannot be read; the message goes on from the file's name."""


def weight_files(folder: Path) -> list[Path]:
    """The weights' files by name, those that the index names and that are absent included. Raises BadIndex."""
    index = folder / INDEX
    if index.is_file():
        return [folder / name for name in sorted(set(read_index(index).values()))]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    return sorted(folder.glob("*.safetensors"))


def other_weights(folder: Path) -> list[Path]:
    """The *.safetensors beside the weights. Raises BadIndex."""
    return sorted(set(folder.glob("*.safetensors")) - set(weight_files(folder)))


def read_index(path: Path) -> dict[str, str]:
    """The file of each tensor. Raises BadIndex."""
    try:
        files = json.loads(path.read_text())["weight_map"]
        if not files or not all(isinstance(name, str) and Path(name).name == name for name in files.values()):
            raise ValueError("its weight_map names no files of this folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadIndex(f"cannot be read ({error!r})") from error
    return files
