#!/usr/bin/env bash
# What only a GPU can show: the trainer's tests of models and updates, and the rows of tests/benches/trainer.py.
#
#   scripts/gpu_check.sh wheels 3.12     here, with a package registry: fetch what a bare machine with that Python lacks
#                                        into build/ (7 MB)
#   scripts/gpu_check.sh                 there, with torch, transformers and peft and no registry: at most 8 minutes
#   scripts/gpu_check.sh against FOLDER  there, a worktree of an earlier commit beside this one, at 1b: at most 5 minutes
#
# It leaves tests.log, and a JSON object a size, in $OUT (build/gpu-check by default), and ends with 1 if one was not ok.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
WHEELS=build/gpu-check-wheels
OUT=${OUT:-build/gpu-check}
NEEDED=(pydantic pydantic-core pydantic-settings annotated-types typing-inspection typing-extensions python-dotenv structlog
  crc32c tomli-w orjson protobuf pytest pluggy iniconfig)

if [[ ${1:-} == wheels ]]; then
  version=${2:?say which Python the GPU machine has, as in: scripts/gpu_check.sh wheels 3.12}
  pins=()
  for name in "${NEEDED[@]}"; do
    pins+=("$(grep --no-filename --max-count=1 "^$name==" requirements/gpu.txt requirements/*.txt | head -n 1 | cut -d ' ' -f 1)")
  done
  exec "$PYTHON" -m pip download --quiet --only-binary :all: --python-version "$version" --no-deps --dest "$WHEELS" "${pins[@]}"
fi

if ! "$PYTHON" -c 'import torch, transformers, peft; assert torch.cuda.is_available()'; then
  echo "gpu_check: $PYTHON needs torch, transformers and peft, and a GPU that torch finds" >&2
  exit 2
fi
mkdir -p "$OUT"
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
for name in "${NEEDED[@]}"; do
  "$PYTHON" -c "import importlib.metadata as m; m.version('$name')" 2>/dev/null && continue
  for wheel in "$WHEELS/${name//-/_}"-[0-9]*.whl; do
    if ! "$PYTHON" -m zipfile -e "$wheel" "$packages"; then
      echo "gpu_check: $name is not installed, and $WHEELS holds no wheel of it: run scripts/gpu_check.sh wheels" >&2
      exit 2
    fi
  done
done
export PYTHONPATH="$PWD:$packages"

ok=0
if [[ ${1:-} == against ]]; then
  timeout 300 "$PYTHON" -m tests.benches.trainer --against "${2:?the folder of an earlier commit}" --rounds 1 --json \
    >"$OUT/against.json" || ok=1
  cat "$OUT/against.json"
  exit "$ok"
fi
timeout 80 "$PYTHON" -m pytest -q -x -c /dev/null --rootdir . --import-mode=importlib tests/models/test_token_head.py \
  tests/models/test_gpu.py tests/training/test_gpu.py >"$OUT/tests.log" 2>&1 || ok=1
tail -n 3 "$OUT/tests.log"
row() { # SIZE SECONDS: one size, two rounds, and what it says
  timeout "$2" "$PYTHON" -m tests.benches.trainer --sizes "$1" --rounds 2 --json >"$OUT/$1.json" || ok=1
  cat "$OUT/$1.json"
}
row 1b 150
row 0.1b 100
row 7b-lora 120
row 7b 30
exit "$ok"
