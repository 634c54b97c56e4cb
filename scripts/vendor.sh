#!/bin/sh
# Lay what the pages use of other people into services/chat/page/vendor: uPlot, the console's charts, as its authors
# released it on npm. To take another version, change both lines here (`npm view uplot@VERSION dist.integrity`), run this,
# and look at build/page after `make page`. The digests of what was laid stand beside it, and a test compares them.
set -eu
VERSION=1.6.32
INTEGRITY=sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==

place=$(cd "$(dirname "$0")/../services/chat/page/vendor" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm pack --silent "uplot@$VERSION" >/dev/null
got=sha512-$(openssl dgst -sha512 -binary "uplot-$VERSION.tgz" | openssl base64 -A)
if [ "$got" != "$INTEGRITY" ]; then
    echo "uplot-$VERSION.tgz is not the file that is expected here: $got instead of $INTEGRITY" >&2
    exit 1
fi
tar -xzf "uplot-$VERSION.tgz"
cp package/dist/uPlot.iife.min.js package/dist/uPlot.min.css "$place"
cp package/LICENSE "$place/uPlot.LICENSE.txt"
cd "$place" && sha256sum uPlot.* > SHA256SUMS
