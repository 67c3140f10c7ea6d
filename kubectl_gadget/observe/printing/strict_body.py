"""An event for strict readers of security events (`observe -o jsonpb`): only the members that its kind has there.

The trap: kinds differ without a reason (a tracepoint has no `data`), and 64-bit numbers are texts.
"""

from collections.abc import Mapping
from typing import Any

from kubectl_gadget.wire.policy_events.body import Object

_ALL = ("process", "parent", "ancestors")
_POLICY = (*_ALL, "policy_name", "message", "tags", "args", "action")
MEMBERS: Mapping[str, frozenset[str]] = {
    "process_exec": frozenset(_ALL),
    "process_exit": frozenset((*_ALL, "signal", "status", "time")),
    "process_kprobe": frozenset(
        (*_POLICY, "function_name", "return", "return_action", "data", "kernel_stack_trace", "user_stack_trace")
    ),
    "process_tracepoint": frozenset((*_POLICY, "subsys", "event")),
    "process_uprobe": frozenset((*_POLICY, "path", "symbol", "offset", "ref_ctr_offset", "data")),
    "process_usdt": frozenset((*_POLICY, "path", "provider", "name")),
    "process_lsm": frozenset((*_POLICY, "function_name", "ima_hash")),
    "process_loader": frozenset((*_ALL, "path", "buildid")),
}
"""For each kind of event, its members."""
_WIDE = frozenset(("size_arg", "long_arg", "orig_size", "offset", "ref_ctr_offset"))
"""64-bit numbers."""


def strict_body(kind: str, body: Object) -> Object:
    """The body of an event of one of these kinds, without our own members."""
    return {name: _spelt(name, value) for name, value in body.items() if name in MEMBERS[kind] and value is not None}


def _spelt(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _spelt(inner, item) for inner, item in value.items()}
    if isinstance(value, list):
        return [_spelt(name, item) for item in value]
    return str(value) if name in _WIDE else value
