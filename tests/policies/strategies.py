"""Random policies that are valid, for tests that read, evaluate, and ask the engine."""

from typing import Any

from hypothesis import strategies as st

NUMBERS = ("int", "uint32", "int64", "uint8")
TEXTS = ("string", "file", "path")
PATHS = ("/", "/etc/passwd", "/etc/shadow", "/etc", "/usr/bin/cat", "/usr/bin/sh", "/data/a.key", "/data/b/c.key", "x")
"""Few, so that filters and events meet."""
ADDRESSES = ("10.0.0.1", "10.1.2.3", "192.168.0.9", "2001:db8::1", "::1", "127.0.0.1")
NETWORKS = ("10.0.0.0/8", "10.1.0.0/16", "192.168.0.9/32", "2001:db8::/32", "::/0", "0.0.0.0/0", "::ffff:10.0.0.0/104")
CAPABILITIES = ("CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NET_RAW")

_FEW = st.integers(0, 5)


def _comparison(type: str, index: int) -> st.SearchStrategy[dict[str, Any]]:
    if type in NUMBERS:
        numbers = st.lists(_FEW.map(str), min_size=1, max_size=6)
        ranges = st.lists(st.tuples(_FEW, _FEW).map(lambda pair: f"{min(pair)}:{max(pair)}"), min_size=1, max_size=3)
        operators = st.sampled_from(["Equal", "NotEqual", "GT", "LT", "Mask", "InMap", "NotInMap"])
        return _filter(index, operators, numbers) | _filter(index, st.sampled_from(["InRange", "NotInRange"]), ranges)
    if type in TEXTS:
        texts = st.lists(st.sampled_from(PATHS), min_size=1, max_size=10)
        operators = st.sampled_from(
            [*("Equal", "NotEqual", "Prefix", "NotPrefix", "Postfix", "NotPostfix", "SubString", "InMap", "NotInMap")]
        )
        return _filter(index, operators, texts)
    networks = st.lists(st.sampled_from(NETWORKS), min_size=1, max_size=4)
    ports = st.lists(st.sampled_from(["22", "80:90", "443"]), min_size=1, max_size=3)
    return (
        _filter(index, st.sampled_from(["SAddr", "NotSAddr", "DAddr", "NotDAddr"]), networks)
        | _filter(index, st.sampled_from(["SPort", "NotSPort", "DPort", "NotDPort"]), ports)
        | _filter(index, st.just("Family"), st.just(["AF_INET"]))
    )


def _filter(
    index: int, operators: st.SearchStrategy[str], values: st.SearchStrategy[list[str]]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda operator, given: {"index": index, "operator": operator, "values": given}, operators, values)


_SETS = st.sampled_from(["In", "NotIn"])
_PROCESS = {
    "matchPIDs": st.fixed_dictionaries(
        {"operator": _SETS, "values": st.lists(_FEW, min_size=1, max_size=6)},
        optional={"isNamespacePID": st.booleans(), "followForks": st.booleans()},
    ),
    "matchBinaries": st.fixed_dictionaries(
        {
            "operator": st.sampled_from(["In", "NotIn"]),
            "values": st.lists(st.sampled_from(["/usr/bin/cat", "/usr/bin/sh"]), min_size=1, max_size=4),
        },
    ),
    "matchNamespaces": st.fixed_dictionaries(
        {
            "namespace": st.sampled_from(["Pid", "Mnt", "Net"]),
            "operator": _SETS,
            "values": st.lists(st.sampled_from(["host_ns", "1", "2"]), min_size=1, max_size=3),
        },
    ),
    "matchNamespaceChanges": st.fixed_dictionaries(
        {"operator": _SETS, "values": st.lists(st.sampled_from(["Pid", "Mnt", "User"]), min_size=1, max_size=3)},
    ),
    "matchCapabilities": st.fixed_dictionaries(
        {"operator": _SETS, "values": st.lists(st.sampled_from(CAPABILITIES), min_size=1, max_size=3)},
        optional={"type": st.sampled_from(["Effective", "Permitted"]), "isNamespaceCapability": st.booleans()},
    ),
    "matchCapabilityChanges": st.fixed_dictionaries(
        {"operator": _SETS, "values": st.lists(st.sampled_from(CAPABILITIES), min_size=1, max_size=3)},
    ),
}
_ACTIONS = st.sampled_from(
    [
        *({"action": "Post"}, {"action": "NoPost"}, {"action": "Sigkill"}, {"action": "Override", "argError": -1}),
        *({"action": "Signal", "argSig": 15}, {"action": "Post", "rateLimit": "1m"}),
    ]
)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """The spec of a policy with one to three kprobes, each with up to eight selectors."""
    return {"kprobes": draw(st.lists(_hooks(), min_size=1, max_size=3))}


@st.composite
def _hooks(draw: st.DrawFn) -> dict[str, Any]:
    types = draw(st.lists(st.sampled_from([*NUMBERS, *TEXTS, "sock"]), min_size=1, max_size=4))
    selectors = []
    for _ in range(draw(st.integers(0, 8))):
        selector: dict[str, Any] = {}
        compared = draw(st.lists(st.integers(0, len(types) - 1), max_size=3))
        if compared:
            selector["matchArgs"] = [draw(_comparison(types[index], index)) for index in compared]
        for key in draw(st.lists(st.sampled_from(sorted(_PROCESS)), max_size=2, unique=True)):
            selector[key] = [draw(_PROCESS[key])]
        if actions := draw(st.lists(_ACTIONS, max_size=1)):
            selector["matchActions"] = actions
        selectors.append(selector)
    return {
        "call": draw(st.sampled_from(["security_file_open", "tcp_connect"])),
        "syscall": False,
        "args": [{"index": index, "type": type} for index, type in enumerate(types)],
        "selectors": selectors,
    }
