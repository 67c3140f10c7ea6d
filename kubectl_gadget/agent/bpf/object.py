"""One BPF object: opened from memory, its variables set, some of its programs loaded and attached.

    object = BpfObject(elf, "trace_open", programs=["open_exit"])
    object.set_variable(offset, value)      # .rodata, before load
    object.map("gadget_events").resize(4 << 20)
    object.load(); object.attach(); …; object.close()

The trap: an object that failed to load cannot be loaded again, with fewer programs or at all; open it anew.
"""

import ctypes
import os
from collections.abc import Iterable, Iterator, Mapping

from kubectl_gadget.agent.bpf import libbpf, sampling
from kubectl_gadget.agent.bpf.btf import Btf
from kubectl_gadget.agent.bpf.links import Links, wait_for_programs
from kubectl_gadget.agent.bpf.maps import HASH, BpfMap
from kubectl_gadget.agent.host import cgroups
from kubectl_gadget.errors import AgentError

_HASHES = (HASH, 9)
"""And those that forget what was used longest ago."""
_PROGRAMS = 3
"""BPF_MAP_TYPE_PROG_ARRAY."""
_OTHER_HASHES = frozenset(
    {
        "gadget_containers",
        "gadget_descendants",
        "gadget_moved",
        "gadget_totals_a",
        "gadget_totals_b",
        "gadget_recorders",
        "gadget_stacks",
    }
)
"""What is in them is not for programs alone."""
TABLE_PREFIX = "gadget_table_"
"""How maps are named that a client may fill (answers/client_tables.py). UPDATE names them without it."""
_TRACING, _TRACE_RAW_TP = 26, 23
MAP_ITERATOR = "iter/bpf_map_elem"
"""The section of iterators over a map's entries."""
AFTER_EXIT = "tracepoint/syscalls/sys_exit"
"""The section of programs that those at exits of system calls go on with (GADGET_AFTER_EXIT in gadget/syscall.h)."""


def _name(raw: bytes) -> str:
    """A name in an object; one that was spoilt need not be UTF-8, and is refused for better reasons."""
    return raw.decode(errors="replace")


class ProgramInfo(ctypes.Structure):
    """What this project reads of struct bpf_prog_info (include/uapi/linux/bpf.h); zeros where the kernel is older."""

    _fields_ = (
        ("unused", ctypes.c_char * 208),
        ("recursion_misses", ctypes.c_uint64),
        ("verified_insns", ctypes.c_uint32),
        ("unused2", ctypes.c_uint32 * 3),
    )


def program_info(fd: int) -> ProgramInfo:
    """Of a loaded program. Raises libbpf.Failure."""
    info, size = ProgramInfo(), ctypes.c_uint32(ctypes.sizeof(ProgramInfo))
    libbpf.load().call("bpf_obj_get_info_by_fd", fd, ctypes.byref(info), ctypes.byref(size))
    return info


class BpfObject:
    """See the module. Raises libbpf.Failure; `programs` None means all of them."""

    def __init__(self, elf: bytes, name: str, programs: Iterable[str] | None = None) -> None:
        self._lib = libbpf.load()
        self._elf = elf  # libbpf points into it until load
        self._links: dict[str, list[int]] = {}
        self._released = Links()
        self.frequency = 0
        """of programs for perf events, per second"""
        self.copy: BpfObject | None = None
        """of some of its programs, for other calls; shares its maps"""
        options = libbpf.OpenOptions(ctypes.sizeof(libbpf.OpenOptions), name[:15].encode())
        self._pointer = self._lib.call("bpf_object__open_mem", elf, len(elf), ctypes.byref(options))
        self._programs = {_name(self._lib.raw("bpf_program__name", p)): p for p in self._each("program")}
        chosen = self._programs.keys() if programs is None else set(programs)
        for program, pointer in self._programs.items():
            self._lib.call("bpf_program__set_autoload", pointer, program in chosen)
        self.chosen = [program for program in self._programs if program in chosen]

    @property
    def program_names(self) -> list[str]:
        """Of all programs in the object, loaded or not."""
        return list(self._programs)

    def section(self, program: str) -> str:
        """Where the program hooks, as in its ELF section: "tracepoint/syscalls/sys_exit_openat"."""
        return _name(self._lib.raw("bpf_program__section_name", self._programs[program])).removeprefix("?")

    def hook(self, program: str) -> str:
        """Where it is attached in fact, for people."""
        return self.section(program)

    def map(self, name: str) -> BpfMap | None:
        """None when the object has no such map."""
        pointer = self._lib.raw("bpf_object__find_map_by_name", self._pointer, name.encode())
        return BpfMap(self._lib, pointer) if pointer else None

    def required_map(self, name: str) -> BpfMap:
        """Raises AgentError when the object, which comes from the client, has no such map."""
        found = self.map(name)
        if found is None:
            raise AgentError(f"the client's object has no map {name}", "update the client or the agents")
        return found

    def reuse(self, shared: Mapping[str, int]) -> None:
        """Uses these maps, by name, where the object has such, before it is loaded."""
        for name, fd in shared.items():
            if found := self.map(name):
                found.reuse(fd)

    def resize_hashes(self, entries: int) -> None:
        """Sets max_entries of the hashes in which programs keep what they need later, before the object is loaded."""
        for pointer in self._each("map"):
            name = _name(self._lib.raw("bpf_map__name", pointer))
            is_other = name in _OTHER_HASHES or name.startswith(TABLE_PREFIX)
            if self._lib.raw("bpf_map__type", pointer) in _HASHES and not is_other:
                BpfMap(self._lib, pointer).resize(entries)

    def set_variable(self, offset: int, value: bytes) -> None:
        """Overwrites bytes of .rodata, before load. Raises ValueError when they lie outside of it."""
        pointer = self._lib.raw("bpf_object__find_map_by_name", self._pointer, b".rodata")
        size = ctypes.c_size_t()
        start = self._lib.raw("bpf_map__initial_value", pointer, ctypes.byref(size)) if pointer else None
        if not start or offset < 0 or offset + len(value) > size.value:
            raise ValueError(f"{len(value)} bytes at {offset} are outside the object's variables")
        ctypes.memmove(start + offset, value, len(value))

    def set_constant(self, name: str, value: int | str | bytes) -> bool:
        """Sets a `const volatile` variable by its name, before load; False when the object has none of that name.
        Raises ValueError when it cannot have the value."""
        pointer = self._lib.raw("bpf_object__btf", self._pointer)
        place = Btf(pointer).variables(".rodata").get(name) if pointer else None
        if place is None:
            return False
        self.set_variable(place[0], variable_bytes(value, place[1]))
        return True

    def share_maps(self, other: "BpfObject") -> None:
        """Makes the object use the maps of another one that is loaded, before it is loaded itself; but for constants,
        and for arrays of programs, which take only programs of one type."""
        for pointer in self._each("map"):
            name = _name(self._lib.raw("bpf_map__name", pointer))
            twin = other.map(name)
            if twin and ".rodata" not in name and self._lib.raw("bpf_map__type", pointer) != _PROGRAMS:
                BpfMap(self._lib, pointer).reuse(twin.fd)

    def make_raw(self, program: str, tracepoint: str) -> None:
        """Makes a program one for this raw tracepoint (tp_btf), whatever its section says, before it is loaded."""
        pointer = self._programs[program]
        self._lib.call("bpf_program__set_type", pointer, _TRACING)
        self._lib.call("bpf_program__set_expected_attach_type", pointer, _TRACE_RAW_TP)
        self._lib.call("bpf_program__set_attach_target", pointer, 0, tracepoint.encode())

    def program_fd(self, program: str) -> int:
        """The file descriptor of a loaded program. It ends with the object."""
        return int(self._lib.call("bpf_program__fd", self._programs[program]))

    def missed(self) -> int:
        """How often programs were not run because one already ran on that CPU. 0 before Linux 5.12."""
        own: int = sum(program_info(self.program_fd(program)).recursion_misses for program in self.chosen)
        return own + (self.copy.missed() if self.copy else 0)

    def expect(self, program: str, attach_type: int) -> None:
        """Sets how the program will be attached, one of enum bpf_attach_type, before it is loaded."""
        self._lib.call("bpf_program__set_expected_attach_type", self._programs[program], attach_type)

    def pointer(self, program: str) -> int:
        """libbpf's own struct of a program. It ends with the object."""
        return int(self._programs[program])

    def load(self) -> None:
        """Loads the chosen programs and creates the maps."""
        self._lib.call("bpf_object__load", self._pointer)
        self._elf = b""

    def attach(self, program: str) -> None:
        """Attaches one program as its section says; those for cgroups to the node's root, beside all others there, and
        those for perf events to all CPUs."""
        pointer = self._programs[program]
        if self.section(program) in ("uprobe", "uretprobe"):
            return  # to files that are not known yet (symbols/uprobes.py)
        if self.section(program) == AFTER_EXIT:
            return  # other programs go on with it
        if self.section(program) == "perf_event":
            self._links[program] = sampling.attach(pointer, self.frequency)
            return
        if self.section(program) == MAP_ITERATOR:
            self._links[program] = [self._attach_to_map(pointer)]
            return
        if not self.section(program).startswith("cgroup"):
            self._links[program] = [self._lib.call("bpf_program__attach", pointer)]
            return
        root = os.open(cgroups.find_root(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._links[program] = [self._lib.call("bpf_program__attach_cgroup", pointer, root)]
        finally:
            os.close(root)

    def aim(self, program: str, target: str) -> None:
        """Sets the kernel function, or the security hook, that a program is for, before it is loaded."""
        self._lib.call("bpf_program__set_attach_target", self._programs[program], 0, target.encode())

    def attach_kprobe(self, program: str, function: str) -> None:
        link = self._lib.call("bpf_program__attach_kprobe", self._programs[program], False, function.encode())
        self._links[program] = [link]

    def attach_kprobes(self, program: str, functions: Mapping[int, str]) -> None:
        """Attaches one program to many functions, each with its number as cookie. Linux 5.18."""
        names = (ctypes.c_char_p * len(functions))(*(name.encode() for name in functions.values()))
        cookies = (ctypes.c_uint64 * len(functions))(*functions)
        options = libbpf.KprobesOptions(ctypes.sizeof(libbpf.KprobesOptions), names, None, cookies, len(functions))
        pointer = self._programs[program]
        link = self._lib.call("bpf_program__attach_kprobe_multi_opts", pointer, None, ctypes.byref(options))
        self._links[program] = [link]

    def attach_tracepoint(self, program: str, subsystem: str, event: str) -> None:
        link = self._lib.call(
            "bpf_program__attach_tracepoint", self._programs[program], subsystem.encode(), event.encode()
        )
        self._links[program] = [link]

    def attach_raw_tracepoint(self, program: str, event: str) -> None:
        link = self._lib.call("bpf_program__attach_raw_tracepoint", self._programs[program], event.encode())
        self._links[program] = [link]

    def _attach_to_map(self, program: int) -> int:
        """A link of an iterator over the entries of the map `gadget_walked`."""
        map = self.map("gadget_walked")
        # union bpf_iter_link_info: its first member is the map's descriptor.
        info = (ctypes.c_uint32 * 4)(map.fd if map else 0)
        options = libbpf.IteratorOptions(ctypes.sizeof(libbpf.IteratorOptions), info, ctypes.sizeof(info))
        return int(self._lib.call("bpf_program__attach_iter", program, ctypes.byref(options)))

    def attached(self, program: str) -> bool:
        return program in self._links

    def iterate(self, program: str) -> bytes:
        """Runs an attached iterator program to its end; what it wrote with bpf_seq_write()."""
        return b"".join(self.pieces(program))

    def pieces(self, program: str) -> Iterator[bytes]:
        """The same in pieces, each of which has all that was written for some objects."""
        return self.read_iterator(self.open_iterator(program))

    def open_iterator(self, program: str) -> int:
        """A file descriptor whose reading runs an attached iterator program; read_iterator() closes it."""
        return int(self._lib.call("bpf_iter_create", self._lib.call("bpf_link__fd", self._links[program][0])))

    @staticmethod
    def read_iterator(fd: int) -> Iterator[bytes]:
        """What the program writes. The kernel's buffer, 32 KiB, is smaller than what is read at once, so no piece ends
        inside of a record."""
        try:
            while piece := os.read(fd, 1 << 16):
                yield piece
        finally:
            os.close(fd)

    def run(self, program: str) -> int:
        """Runs a loaded raw_tp program once in this process's context; what it returned. Linux 5.10, no arguments."""
        options = libbpf.TestRunOptions(size=ctypes.sizeof(libbpf.TestRunOptions))
        self._lib.call("bpf_prog_test_run_opts", self.program_fd(program), ctypes.byref(options))
        return int(options.retval)

    def link_fds(self, program: str) -> list[int]:
        """File descriptors of the links of an attached program. They end with the object."""
        return [int(self._lib.call("bpf_link__fd", link)) for link in self._links[program]]

    def detach(self) -> None:
        """Detaches all programs. They stop running before this returns; their maps stay readable."""
        if self.release():
            wait_for_programs()

    def release(self) -> bool:
        """Detaches all programs. True: some may still be under way, so wait_for_programs() has to be called."""
        of_copy = self.copy.release() if self.copy else False
        links = [link for of_program in self._links.values() for link in of_program]
        self._links.clear()
        return self._released.release(links) or of_copy

    def close(self) -> None:
        """Detaches, and frees maps and programs. May be called twice, and may take long."""
        self.release()
        if self.copy:
            self.copy.close()
        self._released.free()
        pointer, self._pointer = self._pointer, None
        if pointer:
            self._lib.raw("bpf_object__close", pointer)

    def _each(self, what: str) -> Iterator[int]:
        pointer = None
        while pointer := self._lib.raw(f"bpf_object__next_{what}", self._pointer, pointer):
            yield pointer


def variable_bytes(value: int | str | bytes, size: int) -> bytes:
    """A parameter as it lies in .rodata: little-endian numbers, strings padded with NUL. Raises ValueError."""
    if not isinstance(value, int):
        data = value.encode() if isinstance(value, str) else value
        if len(data) > size:
            raise ValueError(f"it takes at most {size} bytes")
        return data.ljust(size, b"\0")
    return value.to_bytes(size, "little", signed=value < 0)
