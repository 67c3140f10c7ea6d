"""Attaches uprobe programs to offsets in a file: to all at once if the kernel can, else one by one.

The trap: the program's attach type has to be set before its object is loaded.
"""

import ctypes
import os
import re
from collections.abc import Iterator, Sequence

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.object import BpfObject

_SECTIONS = ("uprobe", "uretprobe")
_UPROBE_MULTI = 48
"""BPF_TRACE_UPROBE_MULTI."""


class _MultiOptions(ctypes.Structure):
    """The head of struct bpf_uprobe_multi_opts."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("symbols", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("reference_counters", ctypes.c_void_p),
        ("cookies", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("at_return", ctypes.c_bool),
    )


class _Options(ctypes.Structure):
    """The head of struct bpf_uprobe_opts."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("reference_counter", ctypes.c_size_t),
        ("cookie", ctypes.c_uint64),
        ("at_return", ctypes.c_bool),
    )


def has_multi(release: str) -> bool:
    """Whether a kernel attaches uprobes without perf_event_open(), which distributions restrict: 6.6 and later."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return bool(found) and (int(found[1]), int(found[2])) >= (6, 6)  # type: ignore[index]


def prepare(object: BpfObject, program: str) -> None:
    """Prepares a program of any section, before its object is loaded."""
    if has_multi(os.uname().release) and object.section(program) in _SECTIONS:
        object.set_attach_type(program, _UPROBE_MULTI)


def attach(
    object: BpfObject, program: str, path: str, offsets: Sequence[int], cookies: Sequence[int] = (), counter: int = 0
) -> Iterator[int]:
    """Yields each link as soon as it is made, so that the caller has it when the next one fails. `cookies`: one for
    each offset, or none; `counter`: the offset of the counter that turns the probes on, or 0. Raises Failure."""
    lib, program_and_file = libbpf.load(), (object.pointer(program), -1, os.fsencode(path))
    at_return = object.section(program) == "uretprobe"
    if has_multi(os.uname().release):
        count = len(offsets)
        options = _MultiOptions(ctypes.sizeof(_MultiOptions), count=count, at_return=at_return)
        places = (ctypes.c_ulong * count)(*offsets)
        options.offsets = ctypes.addressof(places)
        if counter:
            counters = (ctypes.c_ulong * count)(*[counter] * count)
            options.reference_counters = ctypes.addressof(counters)
        if cookies:
            numbers = (ctypes.c_uint64 * count)(*cookies)
            options.cookies = ctypes.addressof(numbers)
        yield lib.call("bpf_program__attach_uprobe_multi", *program_and_file, None, ctypes.byref(options))
        return
    for number, offset in enumerate(offsets):
        cookie = cookies[number] if cookies else 0
        single = _Options(ctypes.sizeof(_Options), counter, cookie, at_return)
        yield lib.call("bpf_program__attach_uprobe_opts", *program_and_file, offset, ctypes.byref(single))
