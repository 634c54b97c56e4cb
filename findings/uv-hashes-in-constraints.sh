#!/bin/sh
# uv 0.13.8: `uv pip install --require-hashes` and the hashes of a constraints file.
# Expected: it is the same whether a constraints file is named on the command line or by a -c line of the requirements
#       file, as it is for the versions in it.
# Seen: hashes of a constraints file that is named on the command line count, and the package is installed; those of the
#       same file behind a -c line do not, and uv refuses: "all requirements must have a hash, but none were provided".
# It bites who moves -c from a command, say of a Dockerfile, into the requirements file.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uv==0.13.8
echo iniconfig==2.3.0 >plain.txt
echo iniconfig==2.3.0 --hash=sha256:f631c04d2c48c52b84d0d0549c99ff3859c98df65b3101406327ecc7d53fbf12 >constraints.txt
cat - plain.txt >inside.txt <<'EOT'
-c constraints.txt
EOT
install() {
    venv/bin/uv --no-config pip install --quiet --python venv/bin/python --reinstall --require-hashes "$@" 2>&1 && echo installed
}
command_line=$(install -c constraints.txt -r plain.txt) || true
inside=$(install -r inside.txt) || true
echo "Expected: installed, both times"
echo "Seen: -c on the command line: $command_line"
echo "Seen: -c in the requirements file: $inside"
[ "$command_line" = installed ]
case $inside in *"none were provided for: iniconfig==2.3.0") ;; *) exit 1 ;; esac
