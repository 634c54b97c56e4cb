"""Random values for the chart: strategies made of its schema, and a little knowledge of Kubernetes' own objects."""

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.support.chart import CHART, Object

SCHEMA: Object = json.loads((CHART / "values.schema.json").read_text())
Path = tuple[str, ...]

NAMES = st.from_regex(r"[a-z]([a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="{}"), max_size=20)
LABELS = st.dictionaries(NAMES, NAMES, max_size=2)
ENV = st.lists(
    st.fixed_dictionaries({"name": st.from_regex(r"[A-Z]{1,8}", fullmatch=True), "value": TEXTS}), max_size=3
)
OBJECTS: dict[str, SearchStrategy[Any]] = {
    "resources": st.just({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}),
    "extraEnv": ENV,
    "extraEnvFrom": st.lists(NAMES.map(lambda name: {"secretRef": {"name": name}}), max_size=2),
    "extraVolumes": st.just([{"name": "more", "emptyDir": {}}]),
    "extraVolumeMounts": st.just([{"name": "tmp", "mountPath": "/more"}]),
    "serviceAccount": st.one_of(NAMES.map(lambda name: {"name": name}), LABELS.map(lambda each: {"annotations": each})),
    "tolerations": st.just([{"key": "gpu", "operator": "Exists"}]),
    "affinity": st.just({"nodeAffinity": {}}),
    "topologySpreadConstraints": st.just([{"topologyKey": "z", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]),
    "volume": NAMES.map(lambda name: {"persistentVolumeClaim": {"claimName": name}}),
    "pullSecrets": st.lists(NAMES.map(lambda name: {"name": name}), max_size=2),
    "parentRefs": NAMES.map(lambda name: [{"name": name}]),
    "clients": LABELS.map(lambda labels: [{"podSelector": {"matchLabels": labels}}]),
    "prometheus": LABELS.map(lambda labels: [{"namespaceSelector": {"matchLabels": labels}}]),
    "extraEgress": st.just([{"ports": [{"port": 5432}]}]),
    "extraObjects": NAMES.map(lambda n: [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": n}}]),
    "podSecurityContext": st.just({"runAsUser": 1234, "supplementalGroups": [7]}),
    "securityContext": st.just({"privileged": False}),
    "storage": st.just({"type": "ephemeral"}),
}
"""Of values that the schema leaves to Kubernetes, by their last names."""


def leaves(schema: Object = SCHEMA, path: Path = ()) -> dict[Path, Object]:
    """Every value that is no table of others, with its schema."""
    found: dict[Path, Object] = {}
    for name, each in schema.get("properties", {}).items():
        found |= leaves(each, (*path, name)) if "properties" in each else {(*path, name): each}
    return found


LEAVES = leaves()


def nested(path: Path, value: Any) -> Object:
    for name in reversed(path):
        value = {name: value}
    return value


def right(schema: Object, name: str = "") -> SearchStrategy[Any]:
    """What the schema takes."""
    if name in OBJECTS:
        return OBJECTS[name]
    for union in ("oneOf", "anyOf"):
        if union in schema:
            return st.one_of([right(each) for each in schema[union]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return st.booleans()
        case "integer":
            least = schema.get("minimum", schema.get("exclusiveMinimum", -1001) + 1)
            return st.integers(least, min(schema.get("maximum", least + 2**40), least + 2**40))
        case "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum", -1e6))
            most = schema.get("maximum", schema.get("exclusiveMaximum", 1e6))
            return st.floats(
                least,
                most,
                allow_nan=False,
                exclude_min="exclusiveMinimum" in schema,
                exclude_max="exclusiveMaximum" in schema,
            )
        case "string" if "pattern" in schema:
            texts = st.from_regex(schema["pattern"], fullmatch=True, alphabet=st.characters(codec="ascii"))
            return texts.filter(lambda text: len(text) < 60 and text.isprintable())
        case "string":
            return TEXTS
        case "array" if "prefixItems" in schema:
            return st.tuples(*(right(each) for each in schema["prefixItems"])).map(list)
        case "array":
            return st.lists(
                right(schema["items"]), min_size=schema.get("minItems", 0), max_size=3, unique_by=json.dumps
            )
        case "object" if "properties" in schema:
            needed = schema.get("required", ())
            inner = {key: right(each, key) for key, each in schema["properties"].items()}
            return st.fixed_dictionaries(
                {key: inner[key] for key in needed}, optional={key: inner[key] for key in inner if key not in needed}
            )
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return st.dictionaries(NAMES, right(schema["additionalProperties"]), max_size=2)
        case "object":
            return st.just({})
    return TEXTS


def wrong(schema: Object) -> SearchStrategy[Any]:
    """What the schema does not take: another type, a number beyond an end, a text of another form."""
    match schema.get("type"):
        case "integer":
            beyond = [schema["minimum"] - 1] if "minimum" in schema else []
            return st.sampled_from([*beyond, "many", 1.5, [1], {"a": 1}, True])
        case "number":
            beyond = [schema["minimum"] - 1] if "minimum" in schema else []
            return st.sampled_from([*beyond, "many", [1.0], {"a": 1}])
        case "boolean":
            return st.sampled_from(["yes", 1, []])
        case "string" if "enum" in schema or "pattern" in schema:
            return st.sampled_from([7, "no such thing, !", {}])
        case "string":
            return st.sampled_from([7, [], True])
        case "array":
            return st.sampled_from([{"a": 1}, "text", 3])
    return st.sampled_from(["text", 7, []])
