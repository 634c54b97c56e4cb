#!/bin/sh
# transformers 5.19.0: two threads that load models at the same time break weight tying for the rest of the process.
# Expected: from_pretrained in several threads gives each the model that its folder holds, or says that it may not be.
# Seen: it replaces PreTrainedModel.tie_weights on the class while it runs, and two overlapping calls put the stand-in
#       back for good. From then on a tied checkpoint, loaded alone in the same process, has an output layer of its own,
#       random or without memory, and a model made from a configuration alone is not tied either. Load under one lock.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.19.0 torch==2.13.0 numpy==2.4.4
cat > "$work/threads.py" <<'PY'
import sys
from concurrent.futures import ThreadPoolExecutor

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, logging

logging.disable_progress_bar()
logging.set_verbosity_error()
config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True)
AutoModelForCausalLM.from_config(config).save_pretrained(sys.argv[1])

def load(_=None):
    return AutoModelForCausalLM.from_pretrained(sys.argv[1])

def tied():
    for how, model in (("loaded alone", load()), ("made from a configuration", AutoModelForCausalLM.from_config(config))):
        same = model.lm_head.weight is model.model.embed_tokens.weight
        print(f"{how}: the output layer is the embedding: {same}")
    return same

before = tied()
for _ in range(50):
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(load, range(8)))
    after = tied()
    if not after:
        break
sys.exit(0 if before and not after else 1)
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" -W ignore "$work/threads.py" "$work/model"
