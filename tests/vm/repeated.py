"""Selects the tests of tests/bpf that also run in the virtual machine: those whose outcome may differ in its kernel.

If all programs of a gadget are of kinds that also load here (tracepoints, cgroups, iterators), all of its tests have
run on this kernel. In the other one its first test shows that it counts there, and tests/bpf/test_verifier.py that its
programs load. The trap: if this machine runs no BPF tests, the virtual machine is the only place, and runs all of them.
"""

import re
from functools import cache
from pathlib import Path

from tests.needs import PROJECT

BPF = PROJECT / "bpf"
TESTS = PROJECT / "tests" / "bpf"
ELSEWHERE = ("policy", "builtin_policies", "verifier", "evasions")
"""Files that run in other parts, or in neither, by prefix."""
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
_KINDS = re.compile(r'SEC\("\??(?:fentry|fexit|fmod_ret|lsm|k(?:ret)?probe|u(?:ret)?probe|usdt|perf_event)\b')
"""Hooks that a kernel may lack, or may not allow to attach to."""
_INCLUDE = re.compile(r"#include <((?:gadget|kernel)/[^>]+)>")
_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
_MARKED_TEST = re.compile(r"^@pytest\.mark\.bpf\n(?:@.*\n)*(?:async )?def (test_\w+)", re.MULTILINE)


def repeated(everything: bool) -> list[str]:
    """The arguments for pytest: whole files, and the first test of the others."""
    files = [path for path in sorted(TESTS.glob("test_*.py")) if not _name(path).startswith(ELSEWHERE)]
    return [_argument(path, everything or differs(path)) for path in files]


def differs(path: Path) -> bool:
    """Whether all tests of a file must run in the other kernel."""
    gadgets = {source.name.removesuffix(".bpf.c") for source in BPF.glob("*.bpf.c")}
    name = _name(path)
    gadget = max((gadget for gadget in gadgets if name == gadget or name.startswith(f"{gadget}_")), key=len, default="")
    if not gadget or name in DIFFERENT or gadget in DIFFERENT:
        return True
    return bool(_KINDS.search(_with_headers(BPF / f"{gadget}.bpf.c")))


def _argument(path: Path, whole: bool) -> str:
    file = str(path.relative_to(PROJECT))
    if whole:
        return file
    text = path.read_text()
    first = _MARKED_TEST.search(text) or _TEST.search(text)
    return f"{file}::{first[1]}" if first else file


def _name(path: Path) -> str:
    return path.stem.removeprefix("test_")


@cache
def _with_headers(source: Path) -> str:
    """A program and all of our headers that it includes."""
    seen: dict[Path, str] = {}
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path not in seen and path.is_file():
            seen[path] = path.read_text()
            waiting += [BPF / "include" / name for name in _INCLUDE.findall(seen[path])]
    return "\n".join(seen.values())
