"""The gadgets of a CI run: what a build or a release does, at a cost that does not slow it down.

The trap: processes are the last, since what closes at the end of a process has to come before that end.
"""

from collections.abc import Iterable

from kubectl_gadget import catalogue
from kubectl_gadget.session.run_options import GadgetRun

_ALWAYS = ("trace_open", "trace_tcp", "trace_dns", "trace_bind")
_LAST = "trace_process"


def ci_gadgets(further: Iterable[str] = ()) -> tuple[GadgetRun, ...]:
    """The gadgets that always run, and further ones by name."""
    names = dict.fromkeys((*_ALWAYS, *further, _LAST))
    ordered = [name for name in names if name != _LAST]
    return tuple(GadgetRun(catalogue.load_gadget(name)) for name in (*ordered, _LAST))
