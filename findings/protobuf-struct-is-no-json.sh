#!/bin/sh
# protobuf 7.36.2: google.protobuf.Struct, which is documented as a JSON object, does not carry one faithfully.
# Expected: a JSON schema that goes through a Struct comes out as it went in.
# Seen: the keys come out in another order, which differs from process to process, and each integer as a float.
# It bites who hands response formats or tools to a model over gRPC: guided decoding writes an object's properties in the
# order of its schema, and a prompt that renders tools is another prompt (and another prefix-cache entry) each time.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check protobuf==7.36.2
cat > "$work/struct.txt" <<'PY'
import json

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

names = [f"property_{number}" for number in range(12)]
schema = {"type": "object", "properties": {name: {"type": "integer", "maximum": 8} for name in names}}
message = Struct()
message.update(schema)
print(json.dumps(MessageToDict(Struct.FromString(message.SerializeToString()))["properties"]))
PY
for run in 1 2 3; do
  "$work/venv/bin/python" "$work/struct.txt" > "$work/run$run"
done
cat > "$work/compare.txt" <<'PY'
import json
import sys

runs = [json.load(open(path)) for path in sys.argv[1:]]
orders = {tuple(properties) for properties in runs}
maxima = {json.dumps(value["maximum"]) for properties in runs for value in properties.values()}
print("Expected: property_0 … property_11 in this order each time, maximum 8")
for properties in runs:
    print("Seen:", ", ".join(properties))
print("Seen: maximum", *maxima)
given = tuple(f"property_{number}" for number in range(12))
raise SystemExit(not (len(orders) > 1 and orders != {given} and maxima == {"8.0"}))
PY
"$work/venv/bin/python" "$work/compare.txt" "$work"/run?
