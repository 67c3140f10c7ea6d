"""The gadgets of `behavior`, `record --for behavior` and `ci`, with their parameters.

The trap: a fact names its program by the exec before it, so processes are part of every set; they come last, since what
closes at the end of a process has to be reported before that end.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from kubectl_gadget import gadgets
from kubectl_gadget.run.run_options import GadgetRun

_LAST = "trace_process"
PARAMETERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "trace_tcp": {},
        "trace_udp": {"interval": 0},
        "trace_dns": {},
        "trace_bind": {},
        "trace_open": {"resolve": True, "unique": True},
        "trace_capabilities": {"unique": True},
        "trace_privilege": {},
        _LAST: {},
    }
)
SYSCALLS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"trace_syscalls": {"unique": True}})
"""System calls, which cost all calls of the selected containers something; so only those who ask for them have them"""
_OF_CI = ("trace_open", "trace_tcp", "trace_dns", "trace_bind")
"""what a build or a release does, at a cost that does not slow it down"""


def behavior_runs(syscalls: bool = False) -> tuple[GadgetRun, ...]:
    """The gadgets, in the order in which agents are asked to run them."""
    chosen = {**(SYSCALLS if syscalls else {}), **PARAMETERS}
    return tuple(GadgetRun(gadgets.load_gadget(name), dict(values)) for name, values in chosen.items())


def ci_gadgets(further: Iterable[str] = (), facts: bool = False) -> tuple[GadgetRun, ...]:
    """The gadgets that always run in CI, and further ones by name. `facts`: also those that only facts need."""
    names = dict.fromkeys((*(PARAMETERS if facts else _OF_CI), *further))
    ordered = [name for name in names if name != _LAST]
    parameters = {**PARAMETERS, **SYSCALLS} if facts else {}
    return tuple(GadgetRun(gadgets.load_gadget(name), dict(parameters.get(name, {}))) for name in (*ordered, _LAST))
