"""The gadgets behind `behavior` and `record --for behavior`, with their parameters.

The trap: a fact names its program by the exec before it, so processes are part of every set; they come last, since what
closes at the end of a process has to be reported before that end.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from kubectl_gadget import catalogue
from kubectl_gadget.session.run_options import GadgetRun

PARAMETERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "trace_tcp": {},
        "trace_udp": {"interval": 0},
        "trace_dns": {},
        "trace_bind": {},
        "trace_open": {"resolve": True, "unique": True},
        "trace_capabilities": {"unique": True},
        "trace_privilege": {},
        "trace_process": {},
    }
)
SYSCALLS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"trace_syscalls": {"unique": True}})
"""System calls, which cost all calls of the selected containers something; so only those who ask for them have them"""


def behavior_runs(syscalls: bool = False) -> tuple[GadgetRun, ...]:
    """The gadgets, in the order in which agents are asked to run them."""
    chosen = {**(SYSCALLS if syscalls else {}), **PARAMETERS}
    return tuple(GadgetRun(catalogue.load_gadget(name), dict(values)) for name, values in chosen.items())
