#!/bin/sh
# Make .venv hold what requirements/ names, and the project itself; a quick no-op when it already does.
#
#   PYTHON=/path/to/python3.12   use this interpreter (default: the newest of 3.13, 3.12, 3.11 that is found)
#   DEVICE=cpu|gpu               which engine to install (default: gpu where nvidia-smi lists one)
#
# .venv/.stamp holds a checksum of everything that decided the content, so an interrupted run is done again.
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

inputs="requirements/$device.txt requirements/uv.txt pyproject.toml scripts/bootstrap.sh"
# shellcheck disable=SC2086  # a list of names without blanks
want="$device $(cat $inputs | cksum) ${PYTHON:-} $PWD"
if [ -x .venv/bin/python ] && [ "$(cat .venv/.stamp 2>/dev/null)" = "$want" ]; then
    exit 0
fi

python=$(find_python)
free_kib=$(df -Pk . | awk 'NR == 2 { print $4 }')
if [ ! -e .venv/.stamp ] && [ "$free_kib" -lt 8388608 ]; then
    fail "the installation needs 8 GiB of disk, and $((free_kib / 1048576)) GiB are free here: make room, or clone to a larger disk"
fi
rm -f .venv/.stamp
if ! is_supported .venv/bin/python || [ -n "${PYTHON:-}" ]; then
    echo "making .venv: $(describe "$python")"
    rm -rf .venv
    if ! "$python" -m venv .venv >build-venv.log 2>&1; then
        cat build-venv.log >&2
        rm -rf .venv build-venv.log
        fail "$python cannot make a virtual environment: install its venv module (Debian: apt-get install python3-venv)"
    fi
    rm -f build-venv.log
fi
echo "installing for a $device machine; the first time this downloads about 2 GB"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/uv.txt ||
    fail "uv could not be installed: see pip's message above (is the package index reachable, and its proxy set?)"
export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=${UV_NO_PROGRESS:-1}
.venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes "requirements/$device.txt" ||
    fail "the packages of requirements/$device.txt could not be installed: see uv's message above"
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable . ||
    fail "the project itself could not be installed: see uv's message above"
printf '%s' "$want" >.venv/.stamp
