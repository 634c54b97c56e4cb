#!/bin/sh
# Make sure that there is a Chromium for the tests of the page: Debian's, installed where root runs this.
set -u
for browser in chromium chromium-browser google-chrome; do
    command -v "$browser" >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "chromium is missing, and only root on a Debian-like system can install it here: the page is not tried" >&2
    exit 1
fi
echo "installing chromium, for the tests of the page (once)"
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -qq --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 || {
    echo "chromium could not be installed: see what apt-get install chromium says; the page is not tried" >&2
    exit 1
}
