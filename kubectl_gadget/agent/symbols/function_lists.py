"""Lists of functions that only a node can make: its system calls, or its functions whose names match a pattern.

A hook on such a list has one program. The object's map `policy_functions` has the functions' names, by system call
number or by the cookie with which the program is attached. The trap: several functions may share one name, and the
kernel then attaches to none of them.
"""

from collections import Counter

from kubectl_gadget.agent.bpf import syscall_programs
from kubectl_gadget.agent.bpf.maps import BpfMap
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.bpf.own_objects import own_elf
from kubectl_gadget.agent.kernel.kernel_hooks import matching, traceable_names, traceable_problem
from kubectl_gadget.errors import AgentError

MAP = "policy_functions"
MOST = 20_000
"""Functions at one hook; so many take 20 MB of the kernel's memory."""


def functions(pattern: str) -> dict[int, str]:
    """Returns, by number, the hookable functions that a regular expression matches; an empty one matches the system
    calls. Raises AgentError when there are none, too many, or when the kernel does not list them."""
    if not pattern:
        object = BpfObject(own_elf("syscalls"), "syscalls", [])
        try:
            return {number: f"sys_{name}" for name, number in syscall_programs.numbers(object).items()}
        finally:
            object.close()
    names = traceable_names()
    if names is None:
        raise AgentError(traceable_problem())
    found = sorted(name for name, times in Counter(matching(pattern, names)).items() if times == 1)
    if not found:
        raise AgentError(f"no function that can be hooked matches {pattern!r}")
    if len(found) > MOST:
        raise AgentError(f"{len(found)} functions match {pattern!r}; at most {MOST} are supported")
    return dict(enumerate(found))


def fill(map: BpfMap, names: dict[int, str]) -> None:
    """Writes the functions' names to the map of a loaded object."""
    for number, name in names.items():
        map.set_text(number, name)
