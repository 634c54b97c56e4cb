#!/bin/sh
# Resolve what each image of docker/ installs into docker/requirements/, with hashes: the same releases as in
# requirements/cpu.txt (of the engine for GPUs: requirements/gpu.txt), and of them only what the service's extras need.
set -eu
cd "$(dirname "$0")/.."

resolve() { # NAME RELEASES WHAT…
    name=$1 releases=$2
    shift 2
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
        --constraint "$releases" "$@" -o "docker/requirements/$name.txt"
}

.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    --constraint requirements/uv.txt docker/requirements/build.in -o docker/requirements/build.txt
resolve chat requirements/cpu.txt pyproject.toml --extra chat --extra kafka --extra object-store --extra keystore --extra tracing --extra admin
resolve reward requirements/cpu.txt pyproject.toml --extra reward --extra object-store --extra tracing --extra nvml
resolve trainer requirements/cpu.txt pyproject.toml --extra trainer --extra kafka --extra object-store --extra keystore --extra tracing --extra nvml
resolve engine-cpu requirements/cpu.txt pyproject.toml requirements/cpu.in --extra cpu --override requirements/overrides.txt
resolve engine-gpu requirements/gpu.txt pyproject.toml --extra gpu
