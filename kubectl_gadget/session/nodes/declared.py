"""What each agent's command line declares about a run: for the API server's audit log, and for contained agents.

The trap: the agent compares it with what RUN asks for, so both have to be built from the same entries.
"""

from kubectl_gadget.session.options import RunOptions
from kubectl_gadget.wire.session_command import SessionCommand, declared_name, enforces


def declared(options: RunOptions, namespace: str | None) -> SessionCommand:
    """Returns the declaration of this run. `namespace` is the only one whose containers it covers; None: any."""
    from kubectl_gadget.session.request import build

    request = build(options.gadgets, [{} for _ in options.gadgets], options.ring_bytes)
    names = tuple(sorted(declared_name(spec) for spec in request.gadgets))
    only = None if options.selection.host else namespace
    return SessionCommand(names, any(map(enforces, request.gadgets)), namespace=only)
