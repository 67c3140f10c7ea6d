"""What a NetworkPolicy has to look like, as far as its parts are read: which of them are objects, lists and texts.

The trap: a part that is null is one that is missing, but not in a list.
"""

from collections.abc import Collection
from ipaddress import ip_network
from typing import Any

from kubectl_gadget.errors import UsageError

_LABELS = {str: str}
_TERM = {"key": str, "operator": str, "values": [str]}
_SELECTOR = {"matchLabels": _LABELS, "matchExpressions": [_TERM]}
_BLOCK = {"cidr": ip_network, "except": [ip_network]}
_PEER = {"podSelector": _SELECTOR, "namespaceSelector": _SELECTOR, "ipBlock": _BLOCK}
_PORT = {"protocol": str}
_SPEC = {
    "podSelector": _SELECTOR,
    "policyTypes": [str],
    "ingress": [{"from": [_PEER], "ports": [_PORT]}],
    "egress": [{"to": [_PEER], "ports": [_PORT]}],
}
_WHOLE = (_SELECTOR, _TERM, _BLOCK)
"""Shapes without a part that is left out: a selector that is half understood selects others."""
_POLICY = {"metadata": {"name": str, "namespace": str}, "spec": _SPEC}
_NAMES: dict[Any, str] = {dict: "object", list: "list", str: "text"}


def check_shape(policy: Any, where: str) -> None:
    """Raises UsageError, which names the part that is not right."""
    _check(policy, _POLICY, where)


def refuse_others(value: Any, known: Collection[str], place: str) -> None:
    """Raises UsageError when this is no object, or has other fields than those that are `known`."""
    if not isinstance(value, dict):
        raise UsageError(f"{place} is no object")
    if others := value.keys() - known:
        names = ", ".join(sorted(map(str, others)))
        raise UsageError(f"{place}: unknown field {names}", f"one of {', '.join(sorted(known))}")


def _check(value: Any, shape: Any, place: str) -> None:
    if shape is ip_network:
        _check_network(value, place)
        return
    wanted: Any = shape if isinstance(shape, type) else type(shape)
    if not isinstance(value, wanted):
        raise UsageError(f"{place} is no {_NAMES[wanted]} but {value!r}")
    if isinstance(shape, list):
        for number, inner in enumerate(value):
            _check(inner, shape[0], f"{place}[{number}]")
    elif shape is _LABELS:
        for inner in (*value, *value.values()):
            _check(inner, str, f"{place}: {inner!r}")
    elif isinstance(shape, dict):
        if any(shape is one for one in _WHOLE):
            refuse_others(value, shape.keys(), place)
        for key, inner in shape.items():
            if value.get(key) is not None:
                _check(value[key], inner, f"{place}: {key}")


def _check_network(value: Any, place: str) -> None:
    try:
        ip_network(value if isinstance(value, str) else "", strict=False)
    except ValueError:
        raise UsageError(f"{place}: {value!r} is no block of addresses", "such as 10.0.0.0/8") from None
