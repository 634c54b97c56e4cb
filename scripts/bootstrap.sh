#!/bin/sh
# Make .venv hold what requirements/ names, and the project itself; a quick no-op when it already does.
#
#   PYTHON=/path/to/python3.12   use this interpreter (default: the newest of 3.13, 3.12, 3.11 that is found)
#   DEVICE=cpu|gpu               which engine to install (default: gpu where nvidia-smi lists one)
#
# .venv/.packages and .venv/.project hold checksums of what decided the content, so an interrupted run is done again.
set -eu
cd "$(dirname "$0")/.."

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

is_supported() {
    "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

describe() {
    "$1" -c 'import sys; print("%s is Python %d.%d.%d" % ((sys.argv[1],) + sys.version_info[:3]))' "$1" 2>/dev/null || true
}

# There, and made by the interpreter that was named, if one was.
is_wanted() {
    [ -x "$1" ] && { [ -z "${PYTHON:-}" ] || [ "$(release "$1")" = "$(release "$PYTHON")" ]; }
}

release() {
    "$1" -c 'import sys; print(sys.base_prefix, sys.version)' 2>/dev/null || true
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_supported "$PYTHON" && { echo "$PYTHON"; return; }
        found=$(describe "$PYTHON")
        fail "PYTHON=$PYTHON cannot be used: ${found:-it does not run}, and Python 3.11, 3.12 or 3.13 is needed"
    fi
    found=""
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        is_supported "$candidate" && { echo "$candidate"; return; }
        one=$(describe "$candidate")
        found="$found${one:+${found:+, }$one}"
    done
    fail "Python 3.11, 3.12 or 3.13 is needed, and what is here is not: ${found:-no Python at all}.
       Install one of them, or name it: make PYTHON=/path/to/python3.11"
}

case "${DEVICE:-}" in
    cpu | gpu) device=$DEVICE ;;
    "") if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then device=gpu; else device=cpu; fi ;;
    *) fail "DEVICE=$DEVICE is unknown: it is cpu or gpu" ;;
esac

packages="$device $(cat "requirements/$device.txt" requirements/uv.txt scripts/bootstrap.sh | cksum)"
project="$(cksum <pyproject.toml) $PWD"

is_done() {
    [ "$(cat ".venv/.$1" 2>/dev/null)" = "$2" ]
}

if is_wanted .venv/bin/python && is_done packages "$packages" && is_done project "$project"; then
    exit 0
fi

python=$(find_python)
free_kib=$(df -Pk . | awk 'NR == 2 { print $4 }')
if [ ! -e .venv/.packages ] && [ "$free_kib" -lt 8388608 ]; then
    fail "the installation needs 8 GiB of disk, and $((free_kib / 1048576)) GiB are free here: make room, or clone to a larger disk"
fi
if ! is_wanted .venv/bin/python || ! is_supported .venv/bin/python; then
    echo "making .venv: $(describe "$python")"
    rm -rf .venv
    if ! made=$("$python" -m venv .venv 2>&1); then
        printf '%s\n' "$made" >&2
        rm -rf .venv
        fail "$python cannot make a virtual environment: install its venv module (Debian: apt-get install python3-venv)"
    fi
fi
export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS="${UV_NO_PROGRESS:-1}"
if ! is_done packages "$packages"; then
    echo "installing for a $device machine; the first time this downloads about 2 GB"
    rm -f .venv/.packages .venv/.project
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/uv.txt ||
        fail "uv could not be installed: see pip's message above (is the package index reachable, and its proxy set?)"
    # Compiled beforehand: an engine imports vLLM in three processes, and compiling costs each of them 10 s of CPU.
    .venv/bin/uv pip sync --quiet --compile-bytecode --python .venv/bin/python --require-hashes "requirements/$device.txt" ||
        fail "the packages of requirements/$device.txt could not be installed: see uv's message above"
    printf '%s' "$packages" >.venv/.packages
fi
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable . ||
    fail "the project itself could not be installed: see uv's message above"
printf '%s' "$project" >.venv/.project
