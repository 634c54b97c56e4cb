"""Who reaches whom, by the NetworkPolicies of networking.k8s.io/v1, which a cluster of pretended pods does not enforce.

As the API's reference has it: a pod that no policy selects for a direction is open in it; one that is selected has what
any rule of any of its policies allows; a connection needs both its ends to allow it. An `ipBlock` is for addresses
outside of the cluster: it matches no pod.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Policy = Mapping[str, Any]
Direction = Literal["ingress", "egress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """`ports`: its named ones."""

    namespace: str
    labels: Mapping[str, str]
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outside:
    """A place that is no pod of the cluster."""

    address: str


End = Pod | Outside


def reaches(policies: Sequence[Policy], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection from `source` to that port of `target` is let through."""
    leaves = not isinstance(source, Pod) or _lets(policies, "egress", source, target, target, port, protocol)
    return leaves and (
        not isinstance(target, Pod) or _lets(policies, "ingress", target, source, target, port, protocol)
    )


def _lets(
    policies: Iterable[Policy], direction: Direction, pod: Pod, peer: End, target: End, port: int, protocol: str
) -> bool:
    """Whether `pod` lets `peer` through in this direction; ports are those of `target`."""
    mine = [policy for policy in policies if _selects(policy, pod) and direction in _directions(policy)]
    rules = [rule for policy in mine for rule in policy["spec"].get(direction) or ()]
    side = "from" if direction == "ingress" else "to"
    return not mine or any(
        any(_is_peer(peer, wanted, pod.namespace) for wanted in rule.get(side) or [{}])
        and any(_is_port(target, wanted, port, protocol) for wanted in rule.get("ports") or [{"protocol": protocol}])
        for rule in rules
    )


def _directions(policy: Policy) -> set[str]:
    spec = policy["spec"]
    default = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    return {name.lower() for name in spec.get("policyTypes") or default}


def _selects(policy: Policy, pod: Pod) -> bool:
    return policy["metadata"]["namespace"] == pod.namespace and _matches(
        policy["spec"].get("podSelector") or {}, pod.labels
    )


def _is_peer(end: End, wanted: Mapping[str, Any], namespace: str) -> bool:
    """`wanted` is a peer of a rule, {} for a rule that names none; `namespace` is the policy's."""
    if not wanted:
        return True
    if block := wanted.get("ipBlock"):
        return (
            isinstance(end, Outside)
            and _in(end.address, block["cidr"])
            and not any(_in(end.address, other) for other in block.get("except") or ())
        )
    if not isinstance(end, Pod):
        return False
    spaces = wanted.get("namespaceSelector")
    near = end.namespace == namespace if spaces is None else _matches(spaces, end.namespace_labels)
    return near and _matches(wanted.get("podSelector") or {}, end.labels)


def _is_port(target: End, wanted: Mapping[str, Any], port: int, protocol: str) -> bool:
    if wanted.get("protocol", "TCP") != protocol:
        return False
    first = wanted.get("port")
    if isinstance(first, str):
        return isinstance(target, Pod) and target.ports.get(first) == port
    return first is None or first <= port <= wanted.get("endPort", first)


def _in(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """A label selector; an empty one matches everything."""
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()) and all(
        _meets(wanted, labels) for wanted in selector.get("matchExpressions") or ()
    )


def _meets(wanted: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = wanted["key"], wanted.get("values") or ()
    match wanted["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case other:
            raise ValueError(f"no operator of a label selector: {other}")
