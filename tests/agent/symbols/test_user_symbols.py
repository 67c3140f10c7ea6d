"""Names of functions in real processes: the addresses are those of functions that the process is known to have."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from kubectl_gadget.agent.elf import build_id
from kubectl_gadget.agent.host.foreign_files import open_link
from kubectl_gadget.agent.symbols import user_symbols
from kubectl_gadget.agent.symbols.user_symbols import GONE, UNKNOWN, PerfMap, UserSymbols, own_vdso, start_of_stack
from tests.agent.burners import WAYS, addresses, compile_burner

MakeSymbols = Callable[[], UserSymbols]


@contextmanager
def sleeping(program: Path, *before: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process, once it waits for its byte."""
    command = [*before, str(program), "0"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        while Path(os.readlink(f"/proc/{process.pid}/exe")).name != program.name or not waits(process.pid):
            pass
        yield process
    finally:
        process.kill()
        process.communicate()


def waits(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def address_in(pid: int, program: Path, symbol: str) -> int:
    """Where a symbol of the program lies in the process."""
    address = addresses(program)[symbol]
    if address >= 0x400000:
        return address
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return int(next(line for line in maps if program.name in line).split("-")[0], 16) + address


def names(symbols: UserSymbols, pid: int, *addresses: int) -> list[str]:
    return [frame.function for frame in symbols.frames(pid, start_of_stack(pid), addresses)]


@pytest.fixture
def make_symbols() -> Iterator[MakeSymbols]:
    """Makes what the test needs of them; their files are closed after it."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(UserSymbols()))


@pytest.fixture(params=WAYS)
def burner(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return compile_burner(tmp_path / "burner", *WAYS[request.param])


def test_a_stack_of_a_program_has_the_names_of_its_functions(burner: Path, make_symbols: MakeSymbols) -> None:
    with sleeping(burner) as process:
        pid = process.pid
        places = [address_in(pid, burner, name) for name in ("spin", "heavy", "main")]
        # Where calls go on lies behind their instruction.
        assert names(make_symbols(), pid, places[0], places[1] + 9, places[2] + 9) == ["spin", "heavy", "main"]


def test_a_stack_ends_with_the_first_return_address_that_is_not_in_code(
    burner: Path, make_symbols: MakeSymbols
) -> None:
    with sleeping(burner) as process:
        pid, symbols = process.pid, make_symbols()
        spin, heavy = (address_in(pid, burner, name) for name in ("spin", "heavy"))
        stack = start_of_stack(pid)
        assert names(symbols, pid, spin, heavy + 9, stack, heavy + 9) == ["spin", "heavy", UNKNOWN]
        assert names(symbols, pid, spin, 8, stack, heavy + 9) == ["spin", UNKNOWN]
        # Where the process was, code may have been unmapped since.
        assert names(symbols, pid, stack, heavy + 9, 8) == [UNKNOWN, "heavy", UNKNOWN]
        assert names(symbols, pid, stack, 8, heavy + 9) == [UNKNOWN]


def test_a_return_address_may_be_in_the_next_function(burner: Path, make_symbols: MakeSymbols) -> None:
    with sleeping(burner) as process:
        place = address_in(process.pid, burner, "heavy")
        before, at = make_symbols().frames(process.pid, start_of_stack(process.pid), [place, place])
        assert before.function == "heavy"
        assert at.function != "heavy"


def test_a_program_that_was_deleted_is_still_known(burner: Path, make_symbols: MakeSymbols) -> None:
    with sleeping(burner) as process:
        place = address_in(process.pid, burner, "main")
        burner.unlink()
        assert names(make_symbols(), process.pid, place) == ["main"]


def test_another_file_of_the_same_name_is_not_taken_for_the_one_that_is_mapped(
    tmp_path: Path, make_symbols: MakeSymbols
) -> None:
    library = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libc.so" in line)
    copy, moved = tmp_path / "libcopy.so", tmp_path / "libmoved.so"
    copy.write_bytes(Path(library).read_bytes())
    load = f"import ctypes; function = ctypes.CDLL({str(copy)!r}).getppid"
    code = f"{load}; print(ctypes.cast(function, ctypes.c_void_p).value, flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    place = int(process.stdout.readline())
    copy.rename(moved)
    copy.write_bytes(b"something else")
    try:
        found = make_symbols().frames(process.pid, start_of_stack(process.pid), [place])
        assert found[0].module == str(moved)
        assert found[0].function == "getppid"
        moved.rename(tmp_path / "libgone.so")
        os.link(copy, moved)
        (frame,) = make_symbols().frames(process.pid, start_of_stack(process.pid), [place])
        assert frame.function in ("getppid", UNKNOWN)
    finally:
        process.kill()
        process.communicate()


def test_a_process_that_has_ended_is_known_from_before_and_else_not_at_all(
    burner: Path, make_symbols: MakeSymbols
) -> None:
    symbols = make_symbols()
    with sleeping(burner) as process:
        program = start_of_stack(process.pid)
        place = address_in(process.pid, burner, "main")
        other = address_in(process.pid, burner, "light")
        assert names(symbols, process.pid, place) == ["main"]
    assert [frame.function for frame in symbols.frames(process.pid, program, [other])] == ["light"]
    assert make_symbols().frames(process.pid, program, [other]) == [(UNKNOWN, GONE, None, "")]


def test_a_stack_of_the_program_before_is_not_named_after_the_one_that_runs_now(
    burner: Path, make_symbols: MakeSymbols
) -> None:
    with sleeping(burner) as process:
        place = address_in(process.pid, burner, "main")
        (frame,) = make_symbols().frames(process.pid, start_of_stack(process.pid) + 4096, [place])
    assert frame.function == UNKNOWN


def test_a_stripped_program_is_unknown_with_file_and_place(burner: Path, make_symbols: MakeSymbols) -> None:
    places = {}
    with sleeping(burner) as process:
        places["offset"] = address_in(process.pid, burner, "main")
    subprocess.run(["strip", burner], check=True)
    with sleeping(burner) as process:
        maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
        code = next(line for line in maps if burner.name in line and " r-xp " in line).split()
        start, offset = int(code[0].split("-")[0], 16), int(code[2], 16)
        (frame,) = make_symbols().frames(process.pid, start_of_stack(process.pid), [start + 0x123])
        assert frame[:3] == (UNKNOWN, str(burner), offset + 0x123)


def test_an_unknown_function_has_the_build_id_and_its_address_in_the_file(
    tmp_path: Path, make_symbols: MakeSymbols
) -> None:
    program = compile_burner(tmp_path / "burner", *WAYS["pie"], "-Wl,--build-id")
    subprocess.run(["strip", "-o", tmp_path / "stripped", program], check=True)
    with (tmp_path / "stripped").open("rb") as file:
        id = build_id(file.fileno())
    start = addresses(program)["main"]
    with sleeping(tmp_path / "stripped") as process:
        first = Path(f"/proc/{process.pid}/maps").read_text().splitlines()[0]
        place = int(first.split("-")[0], 16) + start
        found = make_symbols().frames(process.pid, start_of_stack(process.pid), [place, place + 3])
    # The second is a return address: its call ends before it.
    assert [frame.code for frame in found] == [f"{id}\t{start:#x}", f"{id}\t{start + 2:#x}"]
    with sleeping(program) as process:
        place = address_in(process.pid, program, "main")
        (frame,) = make_symbols().frames(process.pid, start_of_stack(process.pid), [place])
    assert (frame.function, frame.code) == ("main", "")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_a_container_has_its_own_files(tmp_path: Path, make_symbols: MakeSymbols) -> None:
    """The same path is another program outside of the process's root."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    program = compile_burner(root / "bin" / "burner", *WAYS["static"])
    with sleeping(Path("/bin/burner"), "chroot", str(root)) as process:
        assert names(make_symbols(), process.pid, address_in(process.pid, program, "light")) == ["light"]


def test_the_kernels_code_in_every_process_has_names(make_symbols: MakeSymbols) -> None:
    lines = Path("/proc/self/maps").read_text().splitlines()
    start = next(int(line.split("-")[0], 16) for line in lines if line.endswith("[vdso]"))
    assert own_vdso()[:4] == b"\x7fELF"
    symbols = make_symbols()
    found = {names(symbols, os.getpid(), start + offset)[0] for offset in range(0, 8192, 64)}
    assert any("clock_gettime" in name for name in found)


def test_a_library_that_is_loaded_later_is_found(tmp_path: Path, make_symbols: MakeSymbols) -> None:
    source = tmp_path / "late.c"
    source.write_text("int a_late_function(int x) { return x * 3; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "late.so", source], check=True)
    symbols, pid = make_symbols(), os.getpid()
    assert names(symbols, pid, 4096) == [UNKNOWN]
    library = ctypes.CDLL(str(tmp_path / "late.so"))
    place = ctypes.cast(library.a_late_function, ctypes.c_void_p).value
    assert place
    assert names(symbols, pid, place) == ["a_late_function"]


def test_just_in_time_compilers_name_their_functions(tmp_path: Path) -> None:
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    path.write_text("7f0000001000 100 first\nnonsense\n7f0000001000 80 LazyCompile:~later a.js:3\n")
    try:
        map = PerfMap(os.getpid(), os.getpid())
        map.refresh()
        assert map.find(0x7F0000001010) == ("LazyCompile:~later a.js:3", 0x10)
        assert map.find(0x7F0000001080) is None
        assert map.find(0x7F0000000FFF) is None
        with path.open("a") as file:
            file.write("7f0000002000 10 second\n")
        map.refresh()
        assert map.find(0x7F0000002000) == ("second", 0)
    finally:
        path.unlink()


def test_of_a_perf_map_with_any_number_of_functions_only_the_first_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_symbols, "MOST_LINES", 2)
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    path.write_text("1000 10 first\n2000 10 second\n3000 10 third\n")
    try:
        map = PerfMap(os.getpid(), os.getpid())
        map.refresh()
        assert map.find(0x2000) == ("second", 0)
        assert map.find(0x3000) is None
    finally:
        path.unlink()


def test_the_perf_maps_of_all_processes_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_symbols, "MOST_IN_ALL", 4 * (user_symbols._PER_LINE + len("1000 10 first\n")))
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    path.write_text("1000 10 first\n2000 10 other\n3000 10 third\n")
    try:
        first, second = PerfMap(os.getpid(), os.getpid()), PerfMap(os.getpid(), os.getpid())
        first.refresh()
        assert [bool(first.find(address)) for address in (0x1000, 0x2000, 0x3000)] == [True, True, False]
        second.refresh()
        assert [bool(second.find(address)) for address in (0x1000, 0x2000, 0x3000)] == [True, False, False]
        del first
        path.write_text("1000 10 first\n2000 10 other\n3000 10 third!\n")
        second.refresh()
        assert second.find(0x2000) == ("other", 0)
    finally:
        path.unlink()


def test_a_perf_map_that_leads_out_of_the_container_is_not_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("1000 100 secret\n")
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    os.mkfifo(path)
    try:
        map = PerfMap(os.getpid(), os.getpid())
        map.refresh()
        assert map.find(0x1000) is None
    finally:
        path.unlink()


def test_processes_of_one_program_share_what_is_known_of_its_file(
    burner: Path, make_symbols: MakeSymbols, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a file takes more than all else."""
    opened: list[str] = []

    def counted(pid: int, name: str) -> int:
        opened.append(name)
        return open_link(pid, name)

    monkeypatch.setattr(user_symbols, "open_link", counted)
    symbols = make_symbols()
    for _ in range(3):
        with sleeping(burner) as process:
            assert names(symbols, process.pid, address_in(process.pid, burner, "main")) == ["main"]
    assert opened == ["exe"]


def test_a_file_that_was_written_over_is_read_again(burner: Path, tmp_path: Path, make_symbols: MakeSymbols) -> None:
    """It has the same inode, and other functions."""
    symbols = make_symbols()
    with sleeping(burner) as process:
        place = address_in(process.pid, burner, "main")
        assert names(symbols, process.pid, place) == ["main"]
    inode = burner.stat().st_ino
    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-o", stripped, burner], check=True)
    burner.write_bytes(stripped.read_bytes())
    assert burner.stat().st_ino == inode
    with sleeping(burner) as process:
        maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
        code = next(line for line in maps if burner.name in line and " r-xp " in line)
        assert names(symbols, process.pid, int(code.split("-")[0], 16) + 0x123) == [UNKNOWN]


def test_equal_numbers_of_another_device_are_shared_only_at_one_path(
    tmp_path: Path, make_symbols: MakeSymbols, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on btrfs, where the subvolumes of several containers have one device in the mappings, and inodes in common."""
    real = user_symbols.identity_of
    monkeypatch.setattr(user_symbols, "identity_of", lambda source: (4711, *real(source)[1:]))
    program = compile_burner(tmp_path / "burner", *WAYS["pie"])
    other = tmp_path / "other"
    shutil.copy(program, other)
    subprocess.run(["strip", other], check=True)
    symbols = make_symbols()
    with sleeping(program) as process:
        pid, place = process.pid, address_in(process.pid, program, "main")
        assert names(symbols, pid, place) == ["main"]
        assert list(symbols._seen) == [
            (os.readlink(f"/proc/{pid}/ns/mnt"), program.stat().st_dev, program.stat().st_ino, str(program))
        ]


@pytest.mark.parametrize(("limit", "most"), [("MOST_FILES", 2), ("MOST_SYMBOLS", 1)])
def test_of_too_many_files_the_oldest_is_closed_until_it_is_needed_again(
    limit: str, most: int, tmp_path: Path, make_symbols: MakeSymbols, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With MOST_SYMBOLS, only one file of those with two symbols or more is kept."""
    monkeypatch.setattr(user_symbols, limit, most)
    symbols = make_symbols()
    program = compile_burner(tmp_path / "burner", *WAYS["static"])
    first = tmp_path / "first"
    shutil.copy(program, first)
    with sleeping(first) as oldest:
        place = address_in(oldest.pid, first, "main")
        assert names(symbols, oldest.pid, place) == ["main"]
        functions = next(iter(symbols._files.values())).functions
        for number in range(4):
            copy = tmp_path / f"copy{number}"
            shutil.copy(program, copy)
            with sleeping(copy) as process:
                assert names(symbols, process.pid, address_in(process.pid, copy, "main")) == ["main"]
        assert len(symbols._files) == len(symbols._seen) == most
        assert functions.symbols == 0
        assert names(symbols, oldest.pid, address_in(oldest.pid, first, "_start")) == ["_start"]
