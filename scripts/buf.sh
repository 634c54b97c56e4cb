#!/bin/sh
# Lint and format-check protos/ with the release of buf named as the argument, installed from npm into build/buf.
set -eu
cd "$(dirname "$0")/.."
version=$1

if ! command -v npm >/dev/null 2>&1; then
    echo "protos: NOT linted, since buf comes from npm and there is no npm here"
    exit 0
fi
if [ "$(cat build/buf/version 2>/dev/null)" != "$version" ]; then
    mkdir -p build/buf
    npm install --silent --no-save --no-package-lock --no-audit --no-fund --prefix build/buf "@bufbuild/buf@$version"
    printf '%s' "$version" >build/buf/version
fi
build/buf/node_modules/.bin/buf lint
build/buf/node_modules/.bin/buf format --diff --exit-code
echo "protos: clean"
