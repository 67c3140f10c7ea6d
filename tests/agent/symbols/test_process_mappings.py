"""The mappings of real processes, by both ways in which Linux reports them."""

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubectl_gadget.agent.symbols import user_symbols
from kubectl_gadget.agent.symbols.user_symbols import OpenMaps, ProcessMappings, start_of_stack

Line = tuple[int, int, str]


@pytest.fixture(params=["asked", "text"])
def opened(request: pytest.FixtureRequest) -> Iterator[OpenMaps]:
    maps = OpenMaps(by_text=request.param == "text")
    if not maps.by_text:
        with open("/proc/self/maps") as file:
            try:
                maps.ask(file.fileno(), 4096, 0)
            except OSError as error:
                pytest.skip(f"this kernel only has the text: {error}")
    yield maps
    maps.close()


@contextmanager
def sleeper(code: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that has run `code`."""
    words = [sys.executable, "-c", f"{code}\nprint(flush=True); input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def of(pid: int, opened: OpenMaps) -> ProcessMappings:
    return ProcessMappings(pid, start_of_stack(pid), opened)


def lines(pid: int) -> list[Line]:
    """Start, end and path of the code in /proc/PID/maps."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, bits, _, _, _, *path = line.split(maxsplit=5)
        start, end = (int(text, 16) for text in addresses.split("-"))
        if "x" in bits and path != ["[vsyscall]"]:  # not a process's own
            found.append((start, end, path[0] if path else ""))
    return found


def test_all_code_is_found_as_the_kernel_lists_it(opened: OpenMaps) -> None:
    with sleeper() as process:
        mappings, expected = of(process.pid, opened), lines(process.pid)
        for start, end, path in expected:
            for address in (start, end - 1):
                found = mappings.find(address, 1.0)
                assert found
                assert (found.start, found.end, found.path, found.is_code) == (start, end, path, True)
                if path.startswith("/"):
                    status = os.stat(path)
                    assert found.inode == status.st_ino
        assert mappings.is_known(1.0)


def test_what_is_not_code_is_not_found_as_code(opened: OpenMaps) -> None:
    with sleeper() as process:
        mappings = of(process.pid, opened)
        for address in (4096, start_of_stack(process.pid)):
            found = mappings.find(address, 1.0)
            assert found is None or not found.is_code


def test_the_mappings_of_a_process_are_kept_after_its_end(opened: OpenMaps) -> None:
    """Also the mappings in which no address was seen while it lived."""
    with sleeper() as process:
        mappings, expected = of(process.pid, opened), lines(process.pid)
        assert mappings.find(expected[0][0], 1.0)
    mappings.renew(2.0)
    for start, _, path in expected:
        found = mappings.find(start, 2.0)
        assert found
        assert found.path == path


def test_a_process_that_ended_before_is_never_known(opened: OpenMaps) -> None:
    with sleeper() as process:
        program = start_of_stack(process.pid)
    mappings = ProcessMappings(process.pid, program, opened)
    assert mappings.find(1 << 20, 1.0) is None
    assert not mappings.is_known(1.0)


def test_the_mappings_of_another_program_of_the_process_are_not_taken(opened: OpenMaps) -> None:
    with sleeper() as process:
        mappings = ProcessMappings(process.pid, start_of_stack(process.pid) + 4096, opened)
        assert mappings.find(lines(process.pid)[0][0], 1.0) is None
        assert not mappings.is_known(1.0)


def test_a_program_that_was_replaced_by_exec_does_not_get_the_next_ones_mappings(opened: OpenMaps) -> None:
    wait = "print(flush=True); input()"
    run = f"os.execv(sys.executable, [sys.executable, '-c', '{wait}'])"
    code = f"import os, sys; {wait}; {run}"
    with sleeper(code) as process:
        assert process.stdin
        assert process.stdout
        mappings, before = of(process.pid, opened), lines(process.pid)
        assert mappings.find(before[0][0], 1.0)
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        new = {start for start, _, _ in lines(process.pid)}
        mappings.renew(2.0)
        # Only a program with fixed addresses has code in the same places again.
        for address in new:
            if not any(start <= address < end for start, end, _ in before):
                assert mappings.find(address, 2.0) is None
        found = mappings.find(before[0][0], 2.0)
        assert found
        assert found.start == before[0][0]


def test_what_is_mapped_later_is_found_and_what_has_gone_is_not(opened: OpenMaps) -> None:
    mappings = of(os.getpid(), opened)
    assert mappings.find(4096, 1.0) is None
    protection = mmap.PROT_READ | mmap.PROT_EXEC
    memory = mmap.mmap(-1, 1 << 16, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, protection)
    library = ctypes.CDLL(None)
    library.mmap.restype, library.munmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    address = library.mmap(None, 1 << 16, protection, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    memory.close()
    found = mappings.find(address, 2.0)
    assert found
    assert found.start <= address < found.end
    library.munmap(address, 1 << 16)
    assert mappings.find(address, 2.0) is found
    mappings.renew(3.0)
    assert mappings.find(address, 3.0) is None


def test_only_some_files_are_open_at_a_time(opened: OpenMaps, monkeypatch: pytest.MonkeyPatch) -> None:
    if opened.by_text:
        pytest.skip("none stays open")
    monkeypatch.setattr(user_symbols, "MOST_OPEN", 2)
    start = lines(os.getpid())[0][0]
    before = len(os.listdir("/proc/self/fd"))
    kept = [of(os.getpid(), opened) for _ in range(5)]
    assert all(mappings.find(start, 1.0) for mappings in kept)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    for mappings in kept:
        mappings.renew(2.0)
        assert mappings.find(start, 2.0)
    opened.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_with_endless_mappings_takes_bounded_memory(
    opened: OpenMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    if opened.by_text:
        pytest.skip("the text has all of them")
    monkeypatch.setattr(user_symbols, "MOST_KNOWN", 3)
    monkeypatch.setattr(user_symbols, "MOST_LISTED", 2)
    with sleeper() as process:
        mappings = of(process.pid, opened)
        for start, _, path in lines(process.pid):
            found = mappings.find(start, 1.0)
            assert found
            assert found.path == path
            assert len(mappings._mappings) <= 3
