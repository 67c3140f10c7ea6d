"""The gadgets of a CI run: what a build or a release does, at a cost that does not slow it down.

The trap: processes are the last, since what closes at the end of a process has to come before that end.
"""

from collections.abc import Iterable

from kubectl_gadget import catalogue
from kubectl_gadget.session.recipes.behavior_gadgets import PARAMETERS, SYSCALLS
from kubectl_gadget.session.run_options import GadgetRun

_ALWAYS = ("trace_open", "trace_tcp", "trace_dns", "trace_bind")
_LAST = "trace_process"


def ci_gadgets(further: Iterable[str] = (), facts: bool = False) -> tuple[GadgetRun, ...]:
    """The gadgets that always run, and further ones by name. `facts`: also those that only facts need."""
    names = dict.fromkeys((*(PARAMETERS if facts else _ALWAYS), *further))
    ordered = [name for name in names if name != _LAST]
    parameters = {**PARAMETERS, **SYSCALLS} if facts else {}
    return tuple(GadgetRun(catalogue.load_gadget(name), dict(parameters.get(name, {}))) for name in (*ordered, _LAST))
