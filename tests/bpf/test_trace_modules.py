"""trace modules: modules of the running kernel, loaded and unloaded a prime number of times. Most virtual machines of
clouds and this project's own have modules; a kernel without them skips all."""

import ctypes
import lzma
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.deeds import syscall
from tests.bpf.tracer import Tracer
from tests.vm.machine import CACHE

TIMES = 3
INIT_MODULE, FINIT_MODULE, DELETE_MODULE = (175, 313, 176) if deeds.X86 else (105, 273, 106)
MODULE = "ts_kmp"
"""Text search, which needs no other module and is not in use."""
FOLDERS = (Path("/lib/modules"), CACHE / "root" / "usr" / "lib" / "modules")
NONE = 2**64 - 1
ENOENT = 2


def image() -> Path | None:
    """The module's file for this kernel, compressed or not."""
    for folder in FOLDERS:
        found = sorted((folder / os.uname().release).glob(f"kernel/lib/{MODULE}.ko*"))
        if found:
            return found[0]
    return None


pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(not Path("/proc/modules").exists(), reason="this kernel has no modules (CONFIG_MODULES)"),
]


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """The module, not compressed."""
    found = image()
    if found is None:
        pytest.skip(f"there is no {MODULE}.ko for this kernel")
    data = found.read_bytes()
    target = tmp_path / f"{MODULE}.ko"
    target.write_bytes(lzma.decompress(data) if found.suffix == ".xz" else data)
    return target


def traced(deed: Callable[[], object], **parameters: Any) -> list[dict[str, Any]]:
    with Tracer("trace_modules", **parameters) as tracer:
        pid, code = deeds.in_child(deed)
        records = [record for record in tracer.records() if record["pid"] == pid]
        assert tracer.lost == 0
    assert code == 0
    return records


def told(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in ("operation", "errno", "module", "file", "parameters", "size"))


def test_each_module_is_seen_once_with_name_file_and_result(module: Path) -> None:
    def deed() -> None:
        for _ in range(TIMES):
            fd = os.open(module, os.O_RDONLY)
            assert syscall(FINIT_MODULE, fd, b"dyndbg=+p", 0) == 0
            assert syscall(FINIT_MODULE, fd, b"", 0) < 0
            os.close(fd)
            assert syscall(DELETE_MODULE, MODULE.encode(), os.O_NONBLOCK) == 0

    records = traced(deed)
    assert len(records) == 3 * TIMES
    assert [told(record) for record in records[::3]] == [("load", 0, MODULE, str(module), "dyndbg=+p", NONE)] * TIMES
    assert [record["errno"] for record in records[1::3]] == [17] * TIMES
    assert [told(record) for record in records[2::3]] == [("unload", 0, MODULE, None, None, NONE)] * TIMES


def test_a_module_from_memory_has_no_file(module: Path) -> None:
    data = module.read_bytes()

    def deed() -> None:
        assert syscall(INIT_MODULE, ctypes.create_string_buffer(data, len(data)), len(data), b"") == 0
        assert syscall(DELETE_MODULE, MODULE.encode(), 0) == 0

    loaded, _ = traced(deed)
    assert told(loaded) == ("load", 0, MODULE, None, "", len(data))


def test_a_file_that_is_not_a_module_has_no_name_and_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "no module"
    file.write_bytes(bytes(4096))

    def deed() -> None:
        for _ in range(TIMES):
            assert syscall(FINIT_MODULE, os.open(file, os.O_RDONLY), b"", 0) < 0
            assert syscall(DELETE_MODULE, b"no_such_module", 0) < 0

    records = traced(deed, failed=True)
    assert [told(record) for record in records] == [
        ("load", 8, None, str(file), "", NONE),
        ("unload", ENOENT, "no_such_module", None, None, NONE),
    ] * TIMES


def test_what_the_kernel_asks_for_is_shown_with_its_cause() -> None:
    def deed() -> None:
        try:
            socket.socket(9, socket.SOCK_RAW)  # AF_X25, which is not there
        except OSError:
            return

    records = traced(deed, operation="request")
    assert [told(record)[:3] for record in records] == [("request", 0, "net-pf-9")]
