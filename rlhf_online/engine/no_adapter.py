"""An adapter that changes nothing: what an engine computes with it is what it computes without one.

It stands in where answers that an adapter was writing are to go on as the base model's.
"""

import shutil
from pathlib import Path

from rlhf_online.versions.weight_files import weight_files

CONFIG = "adapter_config.json"


def write_no_adapter(like: Path, folder: Path) -> Path:
    """Make `folder` an adapter of the same tensors as the one in `like`, all zero; returns it. Raises OSError.

    Zero bytes are zeros in every floating type, so that only the header of a safetensors file has to be copied.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(like / CONFIG, folder / CONFIG)
    for weights in weight_files(like):
        with weights.open("rb") as source, (folder / weights.name).open("wb") as target:
            length = source.read(8)
            target.write(length + source.read(int.from_bytes(length, "little")))
            target.truncate(weights.stat().st_size)
    return folder
