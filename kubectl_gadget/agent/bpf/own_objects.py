"""The agent's own BPF objects, which the build puts beside its modules.

The trap: the build finds out which objects the agent needs by the names of these functions
(gadgets/pack_payload.py).
"""

import os
from collections.abc import Callable, Iterable

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.payload import own_files
from kubectl_gadget.errors import AgentError


def own_elf(name: str) -> bytes:
    """Returns one of the agent's own objects for this machine's architecture. Raises AgentError."""
    try:
        return own_files.read(f"built/objects/{os.uname().machine}/{name}.bpf.o")
    except OSError as error:
        raise AgentError(
            f"the agent's own BPF object cannot be read: {error}", "build the BPF objects (make setup)"
        ) from None


def own_object(
    name: str,
    programs: Iterable[str] | None = None,
    prepare: Callable[[BpfObject], object] = lambda _: None,
    attached: Iterable[str] = (),
) -> BpfObject:
    """Opens one of the agent's own objects, calls `prepare`, loads these programs (None: all of them), and attaches
    those in `attached`. Raises Failure, AgentError and what `prepare` raises, and then leaves nothing open."""
    own = BpfObject(own_elf(name), name, programs)
    try:
        prepare(own)
        own.load()
        for program in attached:
            own.attach(program)
    except BaseException:
        own.close()
        raise
    return own


def own_program(name: str, program: str) -> BpfObject | None:
    """Loads one of the agent's own objects, with a program that is run by hand. None when this kernel refuses it."""
    try:
        return own_object(name, [program])
    except (Failure, AgentError):
        return None
