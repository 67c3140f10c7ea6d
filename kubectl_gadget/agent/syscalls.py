"""An object whose programs for single system calls run without perf_event_open(): bpf/syscalls.bpf.c calls them.

Debian's and Ubuntu's kernels keep perf_event_open(), and with it the tracepoints syscalls/…, for CAP_SYS_ADMIN. Raw
tracepoints do not need it, but there is only one for all system calls. The trap: it tells a program in another way what
the call returned, so a program must use gadget_result() (bpf/include/gadget/syscall.h), or the verifier refuses it.
"""

import errno
from collections.abc import Iterable

from kubectl_gadget.agent.bpf_maps import BpfMap
from kubectl_gadget.agent.libbpf import Failure
from kubectl_gadget.agent.object import AFTER_EXIT, BpfObject, own_elf
from kubectl_gadget.errors import AgentError

VARIABLE = "gadget_node_raw_syscalls"
"""What the object's variable is called that has to be 1 then."""

_TRACEPOINT = "tracepoint/syscalls/sys_"


class RawSyscallObject(BpfObject):
    """As BpfObject."""

    def __init__(self, elf: bytes, name: str, programs: Iterable[str] | None = None) -> None:
        super().__init__(elf, name, programs)
        self._caller: BpfObject | None = None
        self._numbers: dict[str, int] = {}
        self._followed: dict[tuple[str, str], str] = {}
        self._calls = {program: call for program in self.chosen if (call := _side_and_name(self.section(program)))}
        for program, (side, _) in self._calls.items():
            self.make_raw(program, f"sys_{side}")
        for program in self.chosen:
            if self.section(program) == AFTER_EXIT:
                self.make_raw(program, "sys_exit")

    def hook(self, program: str) -> str:
        """As "tp_btf/sys_exit (openat)", for a program that follows a system call."""
        if program not in self._calls:
            return super().hook(program)
        side, name = self._calls[program]
        return f"tp_btf/sys_{side} ({name})"

    def load(self) -> None:
        """Loads what calls the programs, too."""
        super().load()
        if not self._calls:
            return
        sides = {side for side, _ in self._calls.values()}
        self._caller = BpfObject(own_elf("syscalls"), "syscalls", [f"at_{side}" for side in sides])
        self._numbers = numbers(self._caller)
        self._caller.load()

    def attach(self, program: str) -> None:
        """Attaches one program. Raises Failure when this architecture does not have its system call."""
        caller = self._caller
        if caller is None or program not in self._calls:
            super().attach(program)
            return
        side, name = self._calls[program]
        if name not in self._numbers:
            raise Failure("bpf_map_update_elem", errno.ENOENT, [f"failed to find the system call '{name}'"])
        if (other := self._followed.setdefault((side, name), program)) != program:
            why = f"{other} and {program} both follow sys_{side}_{name}, and on this node only one program can"
            raise AgentError(why, "make one program of them, or set the node's sysctl kernel.perf_event_paranoid=2")
        _own_map(caller, f"{side}_programs").set(self._numbers[name], self.program_fd(program))
        if not caller.attached(f"at_{side}"):
            caller.attach(f"at_{side}")

    def release(self) -> bool:
        """As BpfObject.release()."""
        of_caller = self._caller.release() if self._caller else False
        return super().release() or of_caller

    def close(self) -> None:
        """As BpfObject.close()."""
        if self._caller:
            self._caller.close()
        super().close()


def _side_and_name(section: str) -> tuple[str, str] | None:
    """("exit", "openat") of "tracepoint/syscalls/sys_exit_openat"; None of a hook that is no system call's."""
    if not section.startswith(_TRACEPOINT) or section == AFTER_EXIT:
        return None
    side, _, name = section.removeprefix(_TRACEPOINT).partition("_")
    return side, name


def numbers(caller: BpfObject) -> dict[str, int]:
    """The numbers of this architecture's system calls, by the names that their tracepoints bear."""
    pairs = (entry.split("=") for entry in _own_map(caller, ".rodata.numbers").text().split())
    return {name: int(number) for name, number in pairs}


def _own_map(caller: BpfObject, name: str) -> BpfMap:
    found = caller.map(name)
    if found is None:
        raise AgentError("syscalls.bpf.o is not of this version", "build the BPF objects again")
    return found
