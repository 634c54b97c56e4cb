#!/bin/sh
# grafana-foundation-sdk, releases of 2026-01-29: which Grafana's types pip installs.
# Expected: `pip install grafana-foundation-sdk` brings the types of the newest Grafana, and `>=11.6` at least 11.6's.
# Seen: both bring those of Grafana 10.1, the oldest. A version is EPOCH!GRAFANA, the epoch is the second at which that
#       package was built, the newest Grafana is built first, and an epoch outweighs all that follows. 11.6's types are
#       there, as 1769699379!11.6.0, and can only be had by that whole version; what 11.6 has anew (panel "logsnew") is
#       missing without a word in what pip chose. The next Grafana's are a version without epoch (1769699241).
# It bites who writes dashboards in Python and lets a tool choose or update the version.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
newest='1769699998!10.1.0' # of the releases that were there; later ones would make the script's answer another
# Install what $1 asks for, and print the version and whether a type of Grafana 11.6 is there.
installed() {
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "grafana-foundation-sdk$1"
    "$work/venv/bin/python" -c "
from importlib.metadata import version
from importlib.util import find_spec
print(version('grafana-foundation-sdk'), 'with' if find_spec('grafana_foundation_sdk.models.logsnew') else 'without', 'logsnew')"
}
any=$(installed "<=$newest")
at_least=$(installed ">=11.6,<=$newest")
whole=$(installed '==1769699379!11.6.0')
echo "Expected: 11.6.0 with logsnew, each time"
echo "Seen: any version: $any"
echo "Seen: >=11.6: $at_least"
echo "Seen: ==1769699379!11.6.0: $whole"
[ "$any" = "$newest without logsnew" ] && [ "$at_least" = "$any" ] && [ "$whole" = '1769699379!11.6.0 with logsnew' ]
