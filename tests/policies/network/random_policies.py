"""Random policies, pods and attempts, of so few addresses, labels and ports that they often meet."""

from typing import Any

from hypothesis import strategies as st

from kubectl_gadget.kube.inventory import Inventory, Node, Pod, Port

NAMESPACES = {"shop": {"team": "a"}, "data": {"team": "b"}}
ADDRESSES = [f"10.0.{i}.{j}" for i in range(2) for j in range(1, 6)] + [f"fd00::{j}" for j in range(1, 5)]
OUTSIDE = ["192.0.2.1", "192.0.2.77", "203.0.113.9", "2001:db8::1", "10.0.0.200"]
NODE = Node("n1", ("172.30.0.11",), ("10.0.0.0/24",))
BLOCKS = [
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/16",
    "10.0.0.0/24",
    "10.0.1.2/31",
    "192.0.2.0/24",
    "192.0.2.64/26",
    "fd00::/64",
]
NUMBERS = [53, 80, 1023, 1024, 5432, 65535]
LABELS = st.fixed_dictionaries({}, optional={"app": st.sampled_from("wd"), "tier": st.sampled_from("xy")})
_TERMS = st.fixed_dictionaries(
    {
        "key": st.sampled_from(["app", "tier"]),
        "operator": st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
        "values": st.lists(st.sampled_from("wdxy"), min_size=1, max_size=2),
    }
)
SELECTORS = st.fixed_dictionaries(
    {}, optional={"matchLabels": LABELS, "matchExpressions": st.lists(_TERMS, max_size=1)}
)
_NAMESPACE_SELECTORS = st.sampled_from([{}, {"matchLabels": {"team": "a"}}, {"matchLabels": {"team": "z"}}])
_NUMBERED = st.builds(
    lambda protocol, ports, ranged: {
        "protocol": protocol,
        "port": min(ports),
        **({"endPort": max(ports)} if ranged else {}),
    },
    st.sampled_from(["TCP", "UDP"]),
    st.tuples(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS)),
    st.booleans(),
)
PORTS = _NUMBERED | st.sampled_from([{}, {"protocol": "UDP"}, {"port": "web"}, {"port": "db", "protocol": "TCP"}])
PEERS = st.one_of(
    st.builds(
        lambda cidr, left_out: {"ipBlock": {"cidr": cidr, "except": left_out}},
        st.sampled_from(BLOCKS),
        st.lists(st.sampled_from(BLOCKS), max_size=2),
    ),
    st.builds(lambda pods: {"podSelector": pods}, SELECTORS),
    st.builds(lambda spaces: {"namespaceSelector": spaces}, _NAMESPACE_SELECTORS),
    st.builds(lambda spaces, pods: {"namespaceSelector": spaces, "podSelector": pods}, _NAMESPACE_SELECTORS, SELECTORS),
)


def _rules(peers: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    optional = {peers: st.lists(PEERS, max_size=2), "ports": st.lists(PORTS, max_size=2)}
    return st.lists(st.fixed_dictionaries({}, optional=optional), max_size=2)


_SPECS = st.fixed_dictionaries(
    {"podSelector": SELECTORS},
    optional={
        "policyTypes": st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
        "ingress": _rules("from"),
        "egress": _rules("to"),
    },
)


@st.composite
def policies(draw: st.DrawFn) -> list[dict[str, Any]]:
    specs = draw(st.lists(_SPECS, min_size=1, max_size=3))
    return [
        {"metadata": {"name": f"p{number}", "namespace": draw(st.sampled_from(list(NAMESPACES)))}, "spec": spec}
        for number, spec in enumerate(specs)
    ]


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    count = draw(st.integers(1, 5))
    addresses = draw(st.lists(st.sampled_from(ADDRESSES), unique=True, min_size=count, max_size=count))
    pods = [
        Pod(
            namespace=draw(st.sampled_from(list(NAMESPACES))),
            name=f"pod{number}",
            labels=draw(LABELS),
            addresses=(address,),
            ports=tuple(draw(st.lists(st.sampled_from(_NAMED), max_size=2))),
        )
        for number, address in enumerate(addresses)
    ]
    return Inventory(pods, [], [NODE], dict(NAMESPACES))


_NAMED = [Port("web", "TCP", 80), Port("web", "TCP", 1024), Port("db", "TCP", 5432), Port("web", "UDP", 53)]
ATTEMPTS = st.tuples(
    st.sampled_from(ADDRESSES + OUTSIDE), st.sampled_from(["TCP", "UDP"]), st.sampled_from([*NUMBERS, 79, 60000])
)
"""The other end's address, protocol and port."""
