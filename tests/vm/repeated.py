"""Selects the tests of tests/bpf that also run in the virtual machine: those whose outcome may differ in its kernel.

If all programs of a gadget are of kinds that also load here (tracepoints, cgroups, iterators, often uprobes), all its
tests have run on this kernel. In the other one its first test shows that it counts there, and test_verifier.py that its
programs load. If this machine runs no BPF tests, the virtual machine is the only place, and runs all of them.
"""

import re
from functools import cache
from pathlib import Path

from kubectl_gadget.agent.kernel.refusal import perf_is_closed
from tests.gadget_run import PROJECT

BPF = PROJECT / "bpf"
TESTS = PROJECT / "tests" / "bpf"
ELSEWHERE = ("policy", "builtin_policies", "verifier", "evasions", "raw_syscalls", "unwind")
"""Files that run in other parts, with fewer capabilities (test_capabilities.py), or in neither, by prefix. Rows of
`unwind` are computed by the same instructions on any kernel, from text that takes an emulator minutes."""
DIFFERENT = (
    # Their programs take another branch in older kernels, depending on BTF (bpf_core_type_exists and so on).
    *("trace_exit", "trace_process", "trace_tcpdrop", "trace_tcpretrans", "trace_tty", "trace_open_io_uring"),
    *("trace_file_io_uring", "trace_fileuse"),
    # This kernel may lack modules, SCTP, or a second kind of file system.
    *("trace_modules", "trace_udp_sctp", "profile_fs"),
    # A user's programs, with hooks of all kinds.
    "single_file",
)
"""Test files that differ by kernel although their hooks do not."""
FOR_IO_URING = ("trace_bind", "trace_tcp")
"""Test files of gadgets of which only an optional program, for io_uring, has a hook that this kernel may lack."""
_KINDS = {"fentry", "fexit", "fmod_ret", "lsm", "kprobe", "kretprobe"}
"""Hooks that a kernel may lack, or may not allow to attach to."""
_PERF_KINDS = {"uprobe", "uretprobe", "usdt", "perf_event"}
"""Hooks that need perf_event_open() and its kind `uprobe`."""
_UPROBES = Path("/sys/bus/event_source/devices/uprobe")
_KIND = re.compile(r'SEC\("\??(\w+)')
_INCLUDE = re.compile(r"#include <((?:gadget|kernel)/[^>]+)>")
_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
_MARKED_TEST = re.compile(r"^@pytest\.mark\.bpf\n(?:@.*\n)*(?:async )?def (test_\w+)", re.MULTILINE)


def repeated(everything: bool) -> list[str]:
    """The arguments for pytest: whole files, and the first test of the others."""
    files = [path for path in sorted(TESTS.glob("test_*.py")) if not _name(path).startswith(ELSEWHERE)]
    if everything:
        return [_file(path) for path in files]
    has_uprobes = _UPROBES.exists() and not perf_is_closed()
    return [argument for path in files for argument in _arguments(path, has_uprobes)]


def differs(path: Path, has_uprobes: bool) -> bool:
    """True if all tests of a file must run in the other kernel. `has_uprobes`: this one takes programs at uprobes and
    at events of perf."""
    name = _name(path)
    named = [gadget for gadget in _gadgets() if name == gadget or name.startswith(f"{gadget}_")]
    gadget = max(named, key=len, default="")
    if not gadget or name in DIFFERENT or gadget in DIFFERENT:
        return True
    kinds = _KINDS if has_uprobes else _KINDS | _PERF_KINDS
    return not kinds.isdisjoint(_hooks(BPF / f"{gadget}.bpf.c"))


def _arguments(path: Path, has_uprobes: bool) -> list[str]:
    text = path.read_text()
    tests = _MARKED_TEST.findall(text) or _TEST.findall(text)
    some = [name for name in tests[1:] if "io_uring" in name] if _name(path) in FOR_IO_URING else []
    if not tests or (not some and differs(path, has_uprobes)):
        return [_file(path)]
    return [f"{_file(path)}::{name}" for name in (tests[0], *some)]


def _file(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def _name(path: Path) -> str:
    return path.stem.removeprefix("test_")


@cache
def _gadgets() -> set[str]:
    return {source.name.removesuffix(".bpf.c") for source in BPF.glob("*.bpf.c")}


@cache
def _hooks(source: Path) -> frozenset[str]:
    """The kinds of hooks in a program and in all of our headers that it includes."""
    text = source.read_text() if source.is_file() else ""
    return frozenset(_KIND.findall(text)).union(*(_hooks(BPF / "include" / name) for name in _INCLUDE.findall(text)))
