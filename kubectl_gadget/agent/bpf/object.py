"""One BPF object: opened from memory, its variables set, a selection of its programs loaded and attached.

    object = BpfObject(elf, "trace_open", programs=["open_ends"])
    object.set_variable(offset, value)      # .rodata, before load
    object.map("gadget_events").resize(4 << 20)
    object.load(); object.attach(); …; object.close()

The trap: after a failed load an object cannot be loaded again, not even with fewer programs. Open a new one.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.btf import Btf
from kubectl_gadget.agent.bpf.kernel_types import open_subset
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.links import Links, needs_ftrace, sample, wait_for_programs, why_no_ftrace, why_stopped
from kubectl_gadget.agent.bpf.maps import HASH, BpfMap
from kubectl_gadget.agent.host import cgroups
from kubectl_gadget.agent.pod import own_files
from kubectl_gadget.errors import AgentError

if TYPE_CHECKING:
    from kubectl_gadget.agent.bpf.packet_programs import PacketDispatcher


_HASHES = (HASH, 9)
"""Hashes, and LRU hashes."""
_PROGRAM_ARRAY = 3
"""BPF_MAP_TYPE_PROG_ARRAY."""
_OTHER_HASHES = frozenset(
    {
        "gadget_containers",
        "gadget_descendants",
        "gadget_moved",
        "gadget_runtimes",
        "gadget_totals_a",
        "gadget_totals_b",
        "gadget_recorders",
        "gadget_stacks",
        "gadget_contents",
        "gadget_unwind_processes",
        "gadget_unwind_wanted",
        "gadget_unwind_rows",
    }
)
"""Hashes that the agent uses too, so resize_hashes() leaves them as they are."""
TABLE_PREFIX = "gadget_table_"
"""Prefix of maps that a client may fill (sources/gadget_source.py). UPDATE names them without it."""
_TRACING, _TRACE_RAW_TP = 26, 23
BY_HAND = "raw_tp"
"""The section of programs that the agent runs itself, such as walks over a map's entries (gadget/walk.h)."""
AFTER_EXIT = "tracepoint/syscalls/sys_exit"
"""The section of programs that other programs tail-call at the end of a system call (GADGET_AFTER_EXIT in
gadget/syscall.h)."""


class Turns:
    """Threads that load BPF objects, one at a time in Python and at the same time in the kernel.

        with turns:                 # in each thread
            ...prepare an object...
            with turns.aside():     # others have their turn
                ...load it...
            ...attach it...

    The kernel verifies the programs of several objects in parallel, on several CPUs. One thread at a time does
    everything else, so what the objects share needs no locks of its own. Methods also work in a thread that
    has no turn.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._owner = 0

    def __enter__(self) -> "Turns":
        self._changed.acquire()
        self._owner = threading.get_ident()
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        self._owner = 0
        self._changed.notify_all()
        self._changed.release()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let others have their turn."""
        if self._owner != threading.get_ident():
            yield
            return
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()

    def wait_while(self, condition: Callable[[], bool]) -> None:
        """Let others have their turn as long as this is true. Only they can end it."""
        if self._owner != threading.get_ident():
            return
        self._changed.notify_all()  # others may wait for what this thread has done in its turn
        while condition():
            self._owner = 0
            self._changed.wait()
            self._owner = threading.get_ident()


def _name(raw: bytes) -> str:
    """Decodes a name. In a corrupt object it may not be UTF-8; loading then fails with a better reason."""
    return raw.decode(errors="replace")


class ProgramInfo(ctypes.Structure):
    """The members of struct bpf_prog_info (include/uapi/linux/bpf.h) used here. Older kernels leave zeros."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("unused", ctypes.c_char * 200),
        ("recursion_misses", ctypes.c_uint64),
        ("verified_insns", ctypes.c_uint32),
        ("unused2", ctypes.c_uint32 * 3),
    )


def program_info(fd: int) -> ProgramInfo:
    """Returns information about a loaded program. Raises libbpf.Failure."""
    info, size = ProgramInfo(), ctypes.c_uint32(ctypes.sizeof(ProgramInfo))
    libbpf.load().call("bpf_obj_get_info_by_fd", fd, ctypes.byref(info), ctypes.byref(size))
    return info


class BpfObject:
    """See the module docstring. Raises libbpf.Failure. `programs` None means all of them."""

    def __init__(self, elf: bytes, name: str, programs: Iterable[str] | None = None) -> None:
        self._lib = libbpf.load()
        self._name = name
        self._elf = elf  # libbpf points into it until the object is loaded
        self._links: dict[str, list[int]] = {}
        self._released = Links()
        self._called: dict[str, bytes | None] = {}
        """the entry of each program array that has one entry, as it was loaded"""
        self._calls: dict[str, str] = {}
        self._left_out: set[str] = set()
        """names of maps that are not created"""
        self._ids: dict[str, int] = {}
        self._fds: dict[str, int] = {}
        self._sections: dict[str, str] = {}
        self.frequency = 0
        """samples per second, for perf event programs"""
        self.caller: PacketDispatcher | None = None
        """what calls some of its programs"""
        self._types = open_subset(elf) if programs is None or programs else None  # open until the object is loaded
        options = libbpf.OpenOptions(ctypes.sizeof(libbpf.OpenOptions), name[:15].encode())
        if self._types is not None:
            options.btf_custom_path = f"/proc/self/fd/{self._types}".encode()
        self._pointer = self._lib.call("bpf_object__open_mem", elf, len(elf), ctypes.byref(options))
        self._programs = {_name(self._lib.raw("bpf_program__name", p)): p for p in self._each("program")}
        chosen = self._programs.keys() if programs is None else set(programs)
        for program, pointer in self._programs.items():
            self._lib.call("bpf_program__set_autoload", pointer, program in chosen)
        self.chosen = [program for program in self._programs if program in chosen]

    @property
    def program_names(self) -> list[str]:
        """Returns the names of all programs in the object, loaded or not."""
        return list(self._programs)

    def section(self, program: str) -> str:
        """Returns the program's ELF section, which says where it hooks: "tracepoint/syscalls/sys_exit_openat"."""
        if program not in self._sections:
            name = _name(self._lib.raw("bpf_program__section_name", self._programs[program]))
            self._sections[program] = name.removeprefix("?")
        return self._sections[program]

    def hook(self, program: str) -> str:
        """Returns where the program is really attached, for messages."""
        return self.section(program)

    def leave_out(self, programs: Set[str]) -> None:
        """Does not load these programs, if the object has them. Call it before the object is loaded."""
        for program in self._programs.keys() & programs:
            self._lib.call("bpf_program__set_autoload", self._programs[program], False)
        self.chosen = [program for program in self.chosen if program not in programs]

    def map(self, name: str) -> BpfMap | None:
        """Returns None when the object has no such map."""
        pointer = self._lib.raw("bpf_object__find_map_by_name", self._pointer, name.encode())
        return BpfMap(self._lib, pointer) if pointer else None

    def required_map(self, name: str) -> BpfMap:
        """Returns the map. Raises AgentError when the object does not have it."""
        found = self.map(name)
        if found is None:
            raise AgentError(f"the BPF object {self._name} has no map {name}", "update the client or the agents")
        return found

    def reuse(self, shared: Mapping[str, int]) -> None:
        """Makes the object use these maps, by name, in place of its own. Call it before the object is loaded."""
        for name, fd in shared.items():
            if found := self.map(name):
                found.reuse(fd)

    def resize_hashes(self, entries: int) -> None:
        """Sets max_entries of the hashes that only programs use, and so the shares of containers in them
        (bpf/include/gadget/map_shares.h). Call it before the object is loaded."""
        self.set_constant("gadget_node_map_entries", entries)
        for pointer in self._each("map"):
            name = _name(self._lib.raw("bpf_map__name", pointer))
            is_other = name in _OTHER_HASHES or name.startswith(TABLE_PREFIX)
            if self._lib.raw("bpf_map__type", pointer) in _HASHES and not is_other:
                BpfMap(self._lib, pointer).resize(entries)

    def leave_out_maps(self, prefix: str) -> None:
        """Does not create the maps with these names, which none of the chosen programs uses. Call it before the object
        is loaded."""
        for pointer in self._each("map"):
            name = _name(self._lib.raw("bpf_map__name", pointer))
            if name.startswith(prefix):
                BpfMap(self._lib, pointer).leave_out()
                self._left_out.add(name)

    def fill_program_array(self, name: str, program: str) -> None:
        """Makes a chosen program the first entry of a program array, when the object is loaded. For programs that are
        not always chosen: an entry in the object itself needs its program."""
        self._calls[name] = program

    def set_variable(self, offset: int, value: bytes) -> None:
        """Overwrites bytes of .rodata, before load. Raises ValueError when they lie outside of it."""
        pointer = self._lib.raw("bpf_object__find_map_by_name", self._pointer, b".rodata")
        size = ctypes.c_size_t()
        start = self._lib.raw("bpf_map__initial_value", pointer, ctypes.byref(size)) if pointer else None
        if not start or offset < 0 or offset + len(value) > size.value:
            raise ValueError(f"{len(value)} bytes at {offset} are outside the object's variables")
        ctypes.memmove(start + offset, value, len(value))

    def set_constant(self, name: str, value: int | str | bytes) -> bool:
        """Sets a `const volatile` variable by its name, before load. Returns False when the object has no such
        variable. Raises ValueError when the value does not fit."""
        pointer = self._lib.raw("bpf_object__btf", self._pointer)
        place = Btf(pointer).variables(".rodata").get(name) if pointer else None
        if place is None:
            return False
        self.set_variable(place[0], variable_bytes(value, place[1]))
        return True

    def constant(self, name: str, section: str = ".rodata") -> bytes:
        """Returns the initial value of a variable. Raises AgentError when the object has none of that name."""
        pointer = self._lib.raw("bpf_object__btf", self._pointer)
        place = Btf(pointer).variables(section).get(name) if pointer else None
        if place is None:
            raise AgentError(f"the object has no variable {name}", "build the BPF objects again")
        return self.required_map(section).initial_value()[place[0] : sum(place)]

    def share_maps(self, other: "BpfObject", but: Collection[str] = ()) -> None:
        """Makes this object use the maps of another, loaded object. Call it before load. Excluded are `but`, constants,
        and program arrays, which accept only programs of one type."""
        for pointer in self._each("map"):
            name = _name(self._lib.raw("bpf_map__name", pointer))
            twin = other.map(name)
            if (
                twin
                and name not in but
                and ".rodata" not in name
                and self._lib.raw("bpf_map__type", pointer) != _PROGRAM_ARRAY
            ):
                BpfMap(self._lib, pointer).reuse(twin.fd)

    def make_raw(self, program: str, tracepoint: str) -> None:
        """Turns a program into a tp_btf program for this raw tracepoint, whatever its section says. Call before
        load."""
        pointer = self._programs[program]
        self._lib.call("bpf_program__set_type", pointer, _TRACING)
        self._lib.call("bpf_program__set_expected_attach_type", pointer, _TRACE_RAW_TP)
        self._lib.call("bpf_program__set_attach_target", pointer, 0, tracepoint.encode())

    def program_fd(self, program: str) -> int:
        """Returns the file descriptor of a loaded program. It is closed with the object."""
        if program not in self._fds:
            self._fds[program] = int(self._lib.call("bpf_program__fd", self._programs[program]))
        return self._fds[program]

    def missed(self) -> int:
        """Returns how often programs were skipped because one already ran on that CPU. 0 before Linux 5.12."""
        return sum(program_info(self.program_fd(program)).recursion_misses for program in self._run_by_kernel())

    def _run_by_kernel(self) -> Iterable[str]:
        """Yields the chosen programs that the kernel itself runs. Others are called by programs, and never skipped."""
        return (program for program in self.chosen if self.section(program) != AFTER_EXIT)

    def set_attach_type(self, program: str, attach_type: int) -> None:
        """Sets the attach type of a program (enum bpf_attach_type), before the object is loaded."""
        self._lib.call("bpf_program__set_expected_attach_type", self._programs[program], attach_type)

    def pointer(self, program: str) -> int:
        """Returns libbpf's struct of a program. It is freed with the object."""
        return int(self._programs[program])

    def load(self, turns: "Turns | None" = None) -> None:
        """Loads the chosen programs and creates the maps. `turns`: other threads have their turn while the kernel
        verifies the programs."""
        with turns.aside() if turns else nullcontext():
            self._lib.call("bpf_object__load", self._pointer)
        self._elf = b""
        self._close_types()
        for name, program in self._calls.items():
            self.required_map(name).put(bytes(4), self.program_fd(program).to_bytes(4, "little"))
        for name in self._program_arrays():
            self._called[name] = self.required_map(name).get(bytes(4))

    def attach(self, program: str) -> None:
        """Attaches one program as its section says. Cgroup programs go to the node's root cgroup, beside all others
        there, and perf event programs to all CPUs."""
        pointer = self._programs[program]
        if self.section(program) in ("uprobe", "uretprobe"):
            return  # attached later, to files that are not known yet (symbols/uprobes.py)
        if self.section(program) in (AFTER_EXIT, BY_HAND):
            return  # called by other programs, or with run()
        if self.caller and self.caller.add(self, program):
            return
        if self.section(program) == "perf_event":
            self._links[program] = sample(pointer, self.frequency)
            return
        if not self.section(program).startswith("cgroup"):
            self._links[program] = [self._lib.call("bpf_program__attach", pointer)]
            return
        root = os.open(cgroups.find_root(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._links[program] = [self._lib.call("bpf_program__attach_cgroup", pointer, root)]
        finally:
            os.close(root)

    def set_attach_target(self, program: str, target: str) -> None:
        """Sets the kernel function or LSM hook that a program attaches to, before the object is loaded."""
        self._lib.call("bpf_program__set_attach_target", self._programs[program], 0, target.encode())

    def attach_kprobes(self, program: str, functions: Mapping[int, str]) -> None:
        """Attaches one program to many functions, with each function's number as its cookie. Needs Linux 5.18."""
        names = (ctypes.c_char_p * len(functions))(*(name.encode() for name in functions.values()))
        cookies = (ctypes.c_uint64 * len(functions))(*functions)
        options = libbpf.KprobesOptions(ctypes.sizeof(libbpf.KprobesOptions), names, None, cookies, len(functions))
        self.attach_by("kprobe_multi_opts", program, None, ctypes.byref(options))

    def attach_by(self, function: str, program: str, *arguments: object) -> None:
        """Attaches one program with libbpf's bpf_program__attach_FUNCTION(), whatever its section says."""
        link = self._lib.call(f"bpf_program__attach_{function}", self._programs[program], *arguments)
        self._links[program] = [link]

    def attached(self, program: str) -> bool:
        return program in self._links or bool(self.caller and self.caller.calls(self, program))

    def iterate(self, program: str) -> bytes:
        """Runs an attached iterator program to its end, and returns what it wrote with bpf_seq_write()."""
        return b"".join(self.pieces(program))

    def pieces(self, program: str) -> Iterator[bytes]:
        """Like iterate(), but in pieces. Each piece holds the complete output for a number of objects."""
        return self.read_iterator(self.open_iterator(program))

    def open_iterator(self, program: str) -> int:
        """Returns a file descriptor; reading from it runs an attached iterator program. read_iterator() closes it."""
        return int(self._lib.call("bpf_iter_create", self._lib.call("bpf_link__fd", self._links[program][0])))

    @staticmethod
    def read_iterator(fd: int) -> Iterator[bytes]:
        """Yields what the program writes. A read is larger than the kernel's buffer of 32 KiB, so records stay
        whole."""
        try:
            while piece := os.read(fd, 1 << 16):
                yield piece
        finally:
            os.close(fd)

    def run(self, program: str) -> int:
        """Runs a loaded raw_tp program in this process, without arguments. Returns its result. Needs Linux
        5.10."""
        options = libbpf.TestRunOptions(size=ctypes.sizeof(libbpf.TestRunOptions))
        self._lib.call("bpf_prog_test_run_opts", self.program_fd(program), ctypes.byref(options))
        return int(options.retval)

    def link_fds(self, program: str) -> list[int]:
        """Returns file descriptors of the links of an attached program. They are closed with the object."""
        return [int(self._lib.call("bpf_link__fd", link)) for link in self._links.get(program, ())]

    def stopped(self) -> dict[str, str]:
        """Returns the attached programs that something else has stopped, and why."""
        called = self.caller.stopped(self) if self.caller else {}
        if not self._links:
            return called
        by_ftrace = [program for program in self._links if needs_ftrace(self.section(program))]
        reason = why_no_ftrace() if by_ftrace else None
        found = dict.fromkeys(by_ftrace, reason) if reason else {}
        for program, links in self._links.items():
            for link in links:
                if why := why_stopped(int(self._lib.raw("bpf_link__fd", link)), self.id_of(program)):
                    found[program] = why
        for name, first in self._called.items():
            if self.required_map(name).get(bytes(4)) != first:
                found[name] = "another process has changed this program array"
        return found | called

    def id_of(self, program: str) -> int:
        """Returns the kernel's number of a loaded program."""
        if program not in self._ids:
            self._ids[program] = program_info(self.program_fd(program)).id
        return self._ids[program]

    def _program_arrays(self) -> Iterator[str]:
        """Yields the names of those with one entry, which says what a program calls next."""
        for pointer in self._each("map"):
            is_array = self._lib.raw("bpf_map__type", pointer) == _PROGRAM_ARRAY
            if is_array and self._lib.raw("bpf_map__max_entries", pointer) == 1:
                name = _name(self._lib.raw("bpf_map__name", pointer))
                if name not in self._left_out:
                    yield name

    def detach(self) -> None:
        """Detaches all programs and waits until they have stopped. Their maps stay readable."""
        if self.release():
            wait_for_programs()

    def release(self) -> bool:
        """Detaches all programs. Returns True when some may still be running: call wait_for_programs() then."""
        was_called = self.caller.remove(self) if self.caller else False
        links = [link for of_program in self._links.values() for link in of_program]
        self._links.clear()
        return self._released.release(links) or was_called

    def close(self) -> None:
        """Detaches the programs, and frees maps and programs. May be called twice, and may take long."""
        self.release()
        self._released.free()
        self._close_types()
        pointer, self._pointer = self._pointer, None
        if pointer:
            self._lib.raw("bpf_object__close", pointer)

    def _close_types(self) -> None:
        if self._types is not None:
            os.close(self._types)
            self._types = None

    def _each(self, what: str) -> Iterator[int]:
        pointer = None
        while pointer := self._lib.raw(f"bpf_object__next_{what}", self._pointer, pointer):
            yield pointer


def variable_bytes(value: int | str | bytes, size: int) -> bytes:
    """Encodes a parameter for .rodata: numbers little-endian, strings padded with NULs. Raises ValueError."""
    if not isinstance(value, int):
        data = value.encode() if isinstance(value, str) else value
        if len(data) > size:
            raise ValueError(f"it takes at most {size} bytes")
        return data.ljust(size, b"\0")
    return value.to_bytes(size, "little", signed=value < 0)


# The agent's own BPF objects, which the build puts beside its modules.
#
# The trap: the build finds out which objects the agent needs by the names of these functions
# (gadgets/pack_payload.py).


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
