"""What each agent's command line declares about a run: for the API server's audit log, and for contained agents.

The trap: the agent compares it with what RUN asks for, so both have to be built from the same entries.
"""

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets.schema import ARCHITECTURES
from kubectl_gadget.run.run_options import RunOptions
from kubectl_gadget.run.run_request import RunRequest
from kubectl_gadget.wire.client_messages import GadgetSpec
from kubectl_gadget.wire.session_command import SessionCommand, acts, declared_name, enforces


def declared(options: RunOptions, namespace: str | None) -> SessionCommand:
    """Returns the declaration of this run. `namespace` is the only one whose containers it covers; None: any."""
    from kubectl_gadget.run.request import build

    request = build(options.gadgets, [{} for _ in options.gadgets], options.ring_bytes)
    names = tuple(sorted(declared_name(spec) for spec in request.gadgets))
    only = None if options.selection.host else namespace
    found = any(_enforces(request, index) for index in range(len(request.gadgets)))
    return SessionCommand(names, found, namespace=only)


def _enforces(request: RunRequest, index: int) -> bool:
    """Whether a gadget could do more than observe on a node of any architecture."""
    spec = request.gadgets[index]
    if not isinstance(spec, GadgetSpec) or not spec.own:
        return enforces(spec)
    return any(acts(spec, elf) for machine in ARCHITECTURES if (elf := _object(request, index, machine)))


def _object(request: RunRequest, index: int, machine: str) -> bytes | None:
    try:
        return request.object_bytes(index, machine)
    except GadgetError:
        return None  # it was not built for such nodes, and cannot run there
