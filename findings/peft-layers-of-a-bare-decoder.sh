#!/bin/sh
# peft 0.21.2: `layers_to_transform` finds no layer of a model whose list of layers is its own child.
# Expected: the setting that adapts layer 2 of a LlamaForCausalLM adapts layer 2 of the LlamaModel inside it, which is the
#           trunk of most reward models.
# Seen: modules of the first are called model.layers.2.…, of the second layers.2.…, and peft looks for a name before the
#       list's: NoMatchingPeftModuleError. With `layers_pattern` = ["layers"] both are found.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check peft==0.21.2 transformers==5.19.0 torch==2.13.0 numpy==2.4.4
cat > "$work/layers.py" <<'PY'
import sys

from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2)

def adapted(kind, pattern):
    lora = LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[2], layers_pattern=pattern)
    try:
        names = [name for name, _ in get_peft_model(kind(config), lora).named_modules() if name.endswith("lora_A")]
    except ValueError as error:
        names = [type(error).__name__]
    print(f"{kind.__name__}, layers_pattern {pattern}: {names}")
    return len(names) == 1 and ".layers.2." in names[0]

found = [adapted(kind, pattern) for kind in (LlamaForCausalLM, LlamaModel) for pattern in (None, ["layers"])]
sys.exit(0 if found == [True, True, False, True] else 1)
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" -W ignore "$work/layers.py"
