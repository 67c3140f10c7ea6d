"""Programs for one system call each, called by bpf/syscalls.bpf.c from the raw tracepoints of all system calls.

    calls = SyscallDispatcher()                                  # one for all objects of a run
    object = SyscallObject(elf, name, programs, calls=calls, of=ALL)
    object.load(); object.attach(program)

The tracepoints syscalls/… are not used. They miss calls of 32-bit programs, and calls of 64-bit programs by int 0x80,
so a container could hide; and Debian's and Ubuntu's kernels reserve perf_event_open(), which attaches them, for
CAP_SYS_ADMIN.

The trap: a raw tracepoint passes the return value in another way, so a program must use gadget_result()
(bpf/include/gadget/syscall.h), or the verifier refuses it.
"""

import errno
import mmap
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.links import REMOVED
from kubectl_gadget.agent.bpf.maps import BpfMap, NumberMap
from kubectl_gadget.agent.bpf.object import AFTER_EXIT, BpfObject, Turns, own_object
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.errors import AgentError

COMPAT = "gadget_node_compat"
"""The variable that is 1 in an object whose programs run only for calls of 32-bit programs."""
ANY_CALL = "gadget_node_any_call"
"""The variable that is 1 in an object whose programs run for calls of 32-bit and of 64-bit programs."""
NATIVE, OF_32_BITS, ALL = (False,), (True,), (False, True)
"""The calls that programs follow. Each value is `is_compat` of SyscallDispatcher.add()."""
_TRACEPOINT = "tracepoint/syscalls/sys_"
_SHARED = ("gadget_compat_calls_now", ".data.compat")
"""Maps for the programs that follow calls of 32-bit programs: the call's arguments, and whether one is in progress."""
_SYSCALLS, _FOLLOWERS = 512, 16
_SOCKETCALL, _NO_CALL = 510, 511
"""As in bpf/syscalls.bpf.c."""
_NONE = (0, 0, 0, 0)
_ROW = struct.Struct("<4I")
"""struct followers."""
_ENTER, _EXIT = 1, 2
"""Bits in the table `of_interest` there: the sides of a call that are followed."""
_INTERESTS = ".data.interest"
"""The map with `of_interest`."""
TABLES = {"followers": "followers", "interests": _INTERESTS}
"""The maps that say which programs are called: by the name in pins, the map's name."""
_STOPPING = ("at_clone", "at_exec", "at_end")
"""The programs that remember calls which a tracer can change before they return."""
_KINDS = ("enter", "exit", "compat_enter", "compat_exit")
"""Each has a program array, in the order of struct followers."""


class SyscallDispatcher:
    """The program that calls the others. Loaded at first use; to be closed after all objects that use it."""

    def __init__(self) -> None:
        self._object: BpfObject | None = None
        self._numbers: dict[str, int] = {}
        self._compat_calls: list[int] = []
        self._masks: dict[int, list[int]] = {}
        self._interests = bytes(_SYSCALLS)
        """the content of `of_interest`"""
        self._memory: dict[str, mmap.mmap] = {}
        """the tables, by name; mapped, since each STATS compares them for each program"""
        self._arrays: dict[str, NumberMap] = {}
        """the program arrays, by kind"""

    def open(self) -> None:
        """Loads the dispatcher, if it is not loaded yet. Raises Failure when the kernel refuses it."""
        if self._object:
            return
        self._object = own_object("syscalls", ["at_enter", "at_exit", *_STOPPING], self._read_calls)
        self._arrays = {kind: NumberMap(self._map(f"{kind}_programs").fd) for kind in _KINDS}
        for name, size in (("followers", _SYSCALLS * _ROW.size), (_INTERESTS, _SYSCALLS)):
            self._memory[name] = mmap.mmap(self._map(name).fd, size, mmap.MAP_SHARED, mmap.PROT_READ)

    def _read_calls(self, object: BpfObject) -> None:
        self._numbers, self._compat_calls = numbers(object), _compat_calls(object)

    def share(self, object: BpfObject) -> None:
        """Makes an object that is not loaded yet use the dispatcher's maps about calls of 32-bit programs."""
        for name in _SHARED:
            if own := object.map(name):
                own.reuse(self._map(name).fd)

    def add(self, side: str, name: str, fd: int, is_compat: bool) -> tuple[str, int, int]:
        """Makes the program `fd` follow a system call. Returns the argument for remove(). Raises Failure when this
        architecture does not have the call, AgentError when too many programs follow it."""
        if name not in self._numbers:
            raise Failure("bpf_map_update_elem", errno.ENOENT, [f"failed to find the system call '{name}'"])
        kind, number = f"compat_{side}" if is_compat else side, self._numbers[name]
        mask = self._masks.setdefault(number, [0] * len(_KINDS))[_KINDS.index(kind)]
        place = next((place for place in range(_FOLLOWERS) if not mask >> place & 1), None)
        if place is None:
            raise AgentError(f"more than {_FOLLOWERS} programs follow sys_{side}_{name}", "run fewer gadgets together")
        self._map(f"{kind}_programs").set(place * _SYSCALLS + number, fd)
        self._mark(number, kind, mask | 1 << place)
        for program in (*(_STOPPING if side == "exit" else ()), f"at_{side}"):
            if self._object and not self._object.attached(program):
                self._object.attach(program)
        return kind, number, place

    def remove(self, followed: tuple[str, int, int]) -> None:
        """Stops calling the program."""
        kind, number, place = followed
        self._mark(number, kind, self._masks[number][_KINDS.index(kind)] & ~(1 << place))
        self._map(f"{kind}_programs").remove(struct.pack("<I", place * _SYSCALLS + number))
        if self._object and not any(any(mask) for mask in self._masks.values()):
            self._object.detach()

    def fds_to_pin(self) -> list[int]:
        """Returns file descriptors of the links and program arrays that must be pinned to outlive this process."""
        if self._object is None:
            return []
        links = [fd for program in self._object.chosen for fd in self._object.link_fds(program)]
        # The kernel empties a program array that no process holds and no pin keeps, although programs still use it.
        return [*links, *(self._map(f"{kind}_programs").fd for kind in _KINDS)]

    def tables(self) -> dict[str, int]:
        """Returns file descriptors of TABLES, by their names in pins."""
        return {name: self._map(map).fd for name, map in TABLES.items()} if self._object else {}

    def content(self) -> tuple[dict[int, list[int]], bytes]:
        """Returns the tables' content: the used rows of `followers` by system call, and all of `of_interest`."""
        return self._masks, self._interests

    def entry(self, followed: tuple[str, int, int]) -> tuple[int, int]:
        """Returns where an added program is called from: the array, as its distance from the end of fds_to_pin(), and
        the key."""
        kind, number, place = followed
        return len(_KINDS) - _KINDS.index(kind), place * _SYSCALLS + number

    def calls(self, followed: tuple[str, int, int], id: int) -> bool:
        """True if a program that was added is still called. `id`: the program's id in the kernel."""
        kind, number, place = followed
        if self._arrays[kind].get(place * _SYSCALLS + number) != id:
            return False
        followers, interests = self._memory["followers"], self._memory[_INTERESTS]
        rows = (number, _SOCKETCALL) if kind.startswith("compat") else (number,)
        return interests[:] == self._interests and all(
            _ROW.unpack_from(followers, row * _ROW.size) == tuple(self._masks[row]) for row in rows
        )

    def close(self) -> None:
        """May be called twice."""
        for memory in self._memory.values():
            memory.close()
        self._memory.clear()
        if self._object:
            self._object.close()
            self._object = None

    def _mark(self, number: int, kind: str, mask: int) -> None:
        self._masks[number][_KINDS.index(kind)] = mask
        self._map("followers").put(struct.pack("<I", number), _ROW.pack(*self._masks[number]))
        # Any of these calls may arrive as socketcall().
        others = [masks for call, masks in self._masks.items() if call != _SOCKETCALL]
        any_of = [0, 0, *(int(any(masks[place] for masks in others)) for place in (2, 3))]
        self._map("followers").put(struct.pack("<I", _SOCKETCALL), _ROW.pack(*any_of))
        self._masks[_SOCKETCALL] = any_of
        changed = bytearray(self._interests)
        for place, call in enumerate(self._compat_calls):  # all 512 anew take a third of a millisecond
            if place == number or call in (number, _SOCKETCALL):
                changed[place] = self._interest(place)
        self._interests = bytes(changed)
        self._map(_INTERESTS).put(bytes(4), self._interests)

    def _interest(self, number: int) -> int:
        """Returns which sides of a number are followed, whatever kind of program makes the call."""
        enter, exit, _, _ = self._masks.get(number, _NONE)
        _, _, compat_enter, compat_exit = self._masks.get(self._compat_calls[number], _NONE)
        return _ENTER * bool(enter or compat_enter) | _EXIT * bool(exit or compat_exit)

    def _map(self, name: str) -> BpfMap:
        if self._object is None:
            raise AgentError("the program that calls others at system calls is not loaded")
        return self._object.required_map(name)


class SyscallObject(BpfObject):
    """Like BpfObject. `calls` None: the object makes its own dispatcher. `of`: which calls its programs follow.
    `follows`: side and system call of programs whose sections do not name them, by program."""

    def __init__(
        self,
        elf: bytes,
        name: str,
        programs: Iterable[str] | None = None,
        calls: SyscallDispatcher | None = None,
        of: tuple[bool, ...] = NATIVE,
        follows: Mapping[str, tuple[str, str]] = MappingProxyType({}),
    ) -> None:
        super().__init__(elf, name, programs)
        self.calls = calls or SyscallDispatcher()
        self._owns_calls = calls is None
        self._of = of
        self._followed: dict[str, list[tuple[str, int, int]]] = {}
        self._followers = {program: call for program in self.chosen if (call := _side_and_name(self.section(program)))}
        self._followers |= follows

    def hook(self, program: str) -> str:
        """Returns "tp_btf/sys_exit (openat)" and the like for a program that follows a system call."""
        if program not in self._followers:
            return super().hook(program)
        side, name = self._followers[program]
        return f"tp_btf/sys_{side} ({name})"

    def load(self, turns: "Turns | None" = None) -> None:
        """Also loads the dispatcher that calls the programs."""
        if self._followers:
            self.calls.open()
            self.calls.share(self)
            if self._of == ALL and not (can_run_32_bit() and self.set_constant(ANY_CALL, True)):
                self._of = NATIVE
        self._follow_raw_tracepoints()
        super().load(turns)

    def _follow_raw_tracepoints(self) -> None:
        """Turns the programs into ones for raw tracepoints. Call it when the dispatcher is loaded: libbpf reads the
        kernel's types for each, and the second time reuses the memory of the first."""
        for program, (side, _) in self._followers.items():
            self.make_raw(program, f"sys_{side}")
        for program in self.chosen:
            if self.section(program) == AFTER_EXIT:
                self.make_raw(program, "sys_exit")

    def attach(self, program: str) -> None:
        """Attaches one program. Raises Failure when this architecture does not have its system call."""
        if program not in self._followers:
            super().attach(program)
            return
        side, name = self._followers[program]
        entries = self._followed[program] = []
        for is_compat in self._of:
            entries.append(self.calls.add(side, name, self.program_fd(program), is_compat))

    def entry(self, program: str) -> tuple[int, int, int] | None:
        """Returns SyscallDispatcher.entry() and the program's id, for a program that follows one kind of calls; None
        for a program with its own link."""
        followed = self._followed.get(program)
        return (*self.calls.entry(followed[0]), self.id_of(program)) if followed else None

    def attached(self, program: str) -> bool:
        return program in self._followed or super().attached(program)

    def _run_by_kernel(self) -> Iterable[str]:
        return (program for program in super()._run_by_kernel() if program not in self._followers)

    def stopped(self) -> dict[str, str]:
        removed = [
            name
            for name, followed in self._followed.items()
            if not all(self.calls.calls(entry, self.id_of(name)) for entry in followed)
        ]
        found = dict.fromkeys(removed, REMOVED)
        return found | super().stopped()

    def release(self) -> bool:
        followed = bool(self._followed)
        while self._followed:
            for entry in self._followed.popitem()[1]:
                self.calls.remove(entry)
        return super().release() or followed

    def close(self) -> None:
        super().close()
        if self._owns_calls:
            self.calls.close()


def tables_match(tables: Mapping[str, BpfMap], masks: Mapping[int, Sequence[int]], interests: bytes) -> bool:
    """True if these TABLES have the content that SyscallDispatcher.content() returned."""
    rows = ((tables["followers"].get(struct.pack("<I", row)), mask) for row, mask in masks.items())
    return tables["interests"].get(bytes(4)) == interests and all(found == _ROW.pack(*mask) for found, mask in rows)


def _side_and_name(section: str) -> tuple[str, str] | None:
    """Returns ("exit", "openat") for "tracepoint/syscalls/sys_exit_openat"; None if it is not a system call."""
    if not section.startswith(_TRACEPOINT) or section == AFTER_EXIT:
        return None
    side, _, name = section.removeprefix(_TRACEPOINT).partition("_")
    return side, name


def numbers(caller: BpfObject) -> dict[str, int]:
    """Returns the numbers of this architecture's system calls, by the names in their tracepoints."""
    pairs = (entry.split("=") for entry in caller.required_map(".rodata.numbers").text().split())
    return {name: int(number) for name, number in pairs}


def _compat_calls(caller: BpfObject) -> list[int]:
    """Returns the 64-bit call for each number of a 32-bit program's call, as gadget_native_call() of
    bpf/include/gadget/syscalls/compat_call.h does; a number that is not a call where there is none."""
    table = struct.iter_unpack("<H", caller.constant("gadget_compat_calls", ".rodata.calls"))
    found = [(entry - 1 if entry else _NO_CALL) & 1023 for (entry,) in table]
    return [*found, *range(len(found), _SOCKETCALL), _NO_CALL, _NO_CALL]


# Whether this node can run 32-bit programs.
#
# Kernels without CONFIG_IA32_EMULATION or CONFIG_COMPAT, x86 kernels with ia32_emulation=off, and arm64 processors
# without AArch32 cannot. A wrong "no" would let a container hide, so hints are not enough: the kernel must have refused
# to execute a 32-bit program because of its format.

_MACHINES = {
    # Each exits with 0. i386: mov $1, %eax; xor %ebx, %ebx; int $0x80.
    "x86_64": (3, 0, bytes.fromhex("b80100000031dbcd80")),
    # arm: mov r0, #0; mov r7, #1; svc 0. Flags: the version of the ABI.
    "aarch64": (40, 0x05000000, struct.pack("<III", 0xE3A00000, 0xE3A07001, 0xEF000000)),
}
_HEADERS = 52 + 32
_BASE = 0x10000
_SYSCTL = "/proc/sys/abi/vsyscall32"
"""Exists in x86 kernels that were built to run 32-bit programs."""
_SWITCH = b"ia32_emulation"
"""The boot parameter that can turn them off."""


@cache
def can_run_32_bit() -> bool:
    """True if this kernel runs 32-bit programs. True if that is unknown."""
    machine = os.uname().machine
    return machine not in _MACHINES or (machine == "x86_64" and _probably_can()) or not _is_refused(machine)


def _probably_can() -> bool:
    """A "yes" from hints, which most nodes give: it avoids the attempt."""
    boot_parameters = procfs.read("/proc/cmdline")
    return bool(boot_parameters) and os.path.exists(_SYSCTL) and _SWITCH not in boot_parameters


def _is_refused(machine: str) -> bool:
    """True if the kernel does not know the format of 32-bit programs."""
    try:
        file = os.memfd_create("kubectl-gadget-32", os.MFD_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(file, _program_of_32_bits(*_MACHINES[machine]))
        os.waitpid(os.posix_spawn(f"/proc/self/fd/{file}", ["32-bit"], {}), 0)
    except OSError as error:
        return error.errno == errno.ENOEXEC
    finally:
        os.close(file)
    return False


def _program_of_32_bits(machine: int, flags: int, code: bytes) -> bytes:
    """Returns a 32-bit ELF file with this code."""
    size = _HEADERS + len(code)
    head = b"\x7fELF\x01\x01\x01" + bytes(9)
    head += struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 52, 0, flags, 52, 32, 1, 0, 0, 0)
    return head + struct.pack("<IIIIIIII", 1, 0, _BASE, _BASE, size, size, 5, 0x1000) + code
