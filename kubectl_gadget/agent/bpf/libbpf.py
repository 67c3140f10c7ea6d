"""libbpf through ctypes, with typed signatures and its log output.

libbpf reports failure as NULL or a negative errno, and gives the reason only through its print callback; `Failure`
combines both. The trap: the callback's va_list is passed on as an opaque pointer, which works on x86-64 and arm64 only.
"""

import ctypes
import mmap
import os
import threading
from ctypes import CFUNCTYPE, POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from kubectl_gadget.agent.pod import own_files
from kubectl_gadget.errors import AgentError

_MOST_LINES = 4000
"""Lines of output from libbpf and the verifier that are kept. The useful ones come last."""

_MOST_BYTES = 16 << 20
"""Bytes of one message. The verifier's log is one message, and its last lines give the reason."""

_PRINT = CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
RING_SAMPLE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)

# name: (result, arguments)
SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "libbpf_set_print": (c_void_p, [_PRINT]),
    "libbpf_num_possible_cpus": (c_int, []),
    "libbpf_probe_bpf_map_type": (c_int, [c_int, c_void_p]),
    "bpf_object__open_mem": (c_void_p, [c_char_p, c_size_t, c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__next_program": (c_void_p, [c_void_p, c_void_p]),
    "bpf_object__next_map": (c_void_p, [c_void_p, c_void_p]),
    "bpf_object__find_map_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_object__btf": (c_void_p, [c_void_p]),
    "bpf_program__name": (c_char_p, [c_void_p]),
    "bpf_program__section_name": (c_char_p, [c_void_p]),
    "bpf_program__set_autoload": (c_int, [c_void_p, c_bool]),
    "bpf_program__set_type": (c_int, [c_void_p, c_int]),
    "bpf_program__set_expected_attach_type": (c_int, [c_void_p, c_int]),
    "bpf_program__set_attach_target": (c_int, [c_void_p, c_int, c_char_p]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_program__attach": (c_void_p, [c_void_p]),
    "bpf_program__attach_perf_event": (c_void_p, [c_void_p, c_int]),
    "bpf_program__attach_cgroup": (c_void_p, [c_void_p, c_int]),
    "bpf_program__attach_kprobe": (c_void_p, [c_void_p, c_bool, c_char_p]),
    "bpf_program__attach_tracepoint": (c_void_p, [c_void_p, c_char_p, c_char_p]),
    "bpf_program__attach_raw_tracepoint": (c_void_p, [c_void_p, c_char_p]),
    "bpf_program__attach_uprobe_multi": (c_void_p, [c_void_p, c_int, c_char_p, c_char_p, c_void_p]),
    "bpf_program__attach_uprobe_opts": (c_void_p, [c_void_p, c_int, c_char_p, c_size_t, c_void_p]),
    "bpf_program__attach_usdt": (c_void_p, [c_void_p, c_int, c_char_p, c_char_p, c_char_p, c_void_p]),
    "bpf_link__fd": (c_int, [c_void_p]),
    "bpf_link__destroy": (c_int, [c_void_p]),
    "bpf_map__name": (c_char_p, [c_void_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_program__attach_kprobe_multi_opts": (c_void_p, [c_void_p, c_char_p, c_void_p]),
    "bpf_map__type": (c_int, [c_void_p]),
    "bpf_map__key_size": (c_uint32, [c_void_p]),
    "bpf_map__value_size": (c_uint32, [c_void_p]),
    "bpf_map__max_entries": (c_uint32, [c_void_p]),
    "bpf_map__inner_map": (c_void_p, [c_void_p]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "bpf_map__set_value_size": (c_int, [c_void_p, c_uint32]),
    "bpf_map__set_autocreate": (c_int, [c_void_p, c_bool]),
    "bpf_map__set_type": (c_int, [c_void_p, c_uint32]),
    "bpf_map__reuse_fd": (c_int, [c_void_p, c_int]),
    "bpf_map__initial_value": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "bpf_map_create": (c_int, [c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p]),
    "bpf_map_update_elem": (c_int, [c_int, c_void_p, c_void_p, c_uint64]),
    "bpf_map_delete_elem": (c_int, [c_int, c_void_p]),
    "bpf_map_lookup_elem": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_freeze": (c_int, [c_int]),
    "bpf_map_get_next_key": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_obj_pin": (c_int, [c_int, c_char_p]),
    "bpf_obj_get": (c_int, [c_char_p]),
    "bpf_map_lookup_and_delete_batch": (
        c_int,
        [c_int, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint32), c_void_p],
    ),
    "bpf_map_update_batch": (c_int, [c_int, c_void_p, c_void_p, POINTER(c_uint32), c_void_p]),
    "bpf_map_lookup_batch": (
        c_int,
        [c_int, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint32), c_void_p],
    ),
    "bpf_prog_test_run_opts": (c_int, [c_int, c_void_p]),
    "bpf_obj_get_info_by_fd": (c_int, [c_int, c_void_p, POINTER(c_uint32)]),
    "bpf_iter_create": (c_int, [c_int]),
    "bpf_enable_stats": (c_int, [c_int]),
    "bpf_prog_get_next_id": (c_int, [c_uint32, POINTER(c_uint32)]),
    "bpf_link_get_next_id": (c_int, [c_uint32, POINTER(c_uint32)]),
    "bpf_prog_get_fd_by_id": (c_int, [c_uint32]),
    "bpf_link_get_fd_by_id": (c_int, [c_uint32]),
    "bpf_map_get_fd_by_id": (c_int, [c_uint32]),
    "btf__load_vmlinux_btf": (c_void_p, []),
    "btf__load_module_btf": (c_void_p, [c_char_p, c_void_p]),
    "btf__parse": (c_void_p, [c_char_p, c_void_p]),
    "btf__find_by_name_kind": (c_int, [c_void_p, c_char_p, c_uint32]),
    "btf__type_by_id": (c_void_p, [c_void_p, c_uint32]),
    "btf__name_by_offset": (c_char_p, [c_void_p, c_uint32]),
    "ring_buffer__new": (c_void_p, [c_int, RING_SAMPLE, c_void_p, c_void_p]),
    "ring_buffer__consume": (c_int, [c_void_p]),
    "ring_buffer__free": (None, [c_void_p]),
}


class OpenOptions(ctypes.Structure):
    """The head of struct bpf_object_open_opts; libbpf takes the rest as zeros."""

    _fields_ = (
        ("size", c_size_t),
        ("object_name", c_char_p),
        ("relaxed_maps", c_bool),
        ("pin_root_path", c_char_p),
        ("unused", c_uint32),
        ("kconfig", c_char_p),
        ("btf_custom_path", c_char_p),
    )


class MapOptions(ctypes.Structure):
    """The head of struct bpf_map_create_opts."""

    _fields_ = (
        ("size", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
    )


class KprobesOptions(ctypes.Structure):
    """The head of struct bpf_kprobe_multi_opts."""

    _fields_ = (
        ("size", c_size_t),
        ("symbols", POINTER(c_char_p)),
        ("addresses", c_void_p),
        ("cookies", POINTER(c_uint64)),
        ("count", c_size_t),
        ("at_return", c_bool),
    )


class TestRunOptions(ctypes.Structure):
    """struct bpf_test_run_opts."""

    _fields_ = (
        ("size", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    )


class Failure(Exception):
    """A libbpf call failed. `errno` is positive; `log` holds the messages of libbpf and the verifier, oldest first."""

    def __init__(self, call: str, errno: int, log: list[str]) -> None:
        super().__init__(f"{call}: {os.strerror(errno)}")
        self.call = call
        self.errno = errno
        self.log = log


class _OfThread(threading.local):
    """The messages of libbpf in the calls of one thread."""

    def __init__(self) -> None:
        self.log: list[str] = []
        pages = mmap.mmap(-1, _MOST_BYTES)  # only written ones use memory
        self.text = (ctypes.c_char * _MOST_BYTES).from_buffer(pages)


class Libbpf:
    """The library, which `load()` loads at its first call. Functions are called by their C names:
    `lib.call("bpf_object__load", object)`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._of_thread = _OfThread()
        self._functions = {}
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
            self._functions[name] = function
        vsnprintf = ctypes.CDLL(None).vsnprintf
        vsnprintf.argtypes = [c_char_p, c_size_t, c_char_p, c_void_p]

        def log(level: int, form: bytes, arguments: int) -> int:
            if level < 2:  # 2 is debug: hundreds of lines per object
                text, lines = self._of_thread.text, self._of_thread.log
                vsnprintf(text, len(text), form, arguments)
                lines += text.value.decode(errors="replace").splitlines()
                del lines[:-_MOST_LINES]
            return 0

        self._callback = _PRINT(log)  # libbpf keeps the pointer, so it must not be garbage collected
        self._functions["libbpf_set_print"](self._callback)

    def raw(self, name: str, *arguments: Any) -> Any:
        """Returns the C function's result unchanged; for functions that cannot fail."""
        return self._functions[name](*arguments)

    def call(self, name: str, *arguments: Any) -> Any:
        """Returns the C function's result. Raises Failure when it is NULL or negative."""
        self._of_thread.log.clear()
        ctypes.set_errno(0)
        result = self._functions[name](*arguments)
        if result is None or result < 0:
            errno = ctypes.get_errno() or -(result or 0)
            raise Failure(name, errno, list(self._of_thread.log))
        return result


@cache
def load() -> Libbpf:
    """Returns the library. Raises AgentError when it is not installed or too old."""
    try:
        return Libbpf(own_files.libbpf())
    except OSError as error:
        remedy = "make setup in a source tree; else install libbpf 1.3 or newer (Debian 13: apt-get install libbpf1)"
        raise AgentError(f"there is no libbpf here, and the system's cannot be loaded: {error}", remedy) from None
    except AttributeError as error:
        raise AgentError(f"this libbpf lacks a function: {error}", "install libbpf 1.3 or newer") from None
