"""Separate files with symbols, for real processes of stripped programs."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from kubectl_gadget.agent.elf import build_id
from kubectl_gadget.agent.symbols import debug_files
from kubectl_gadget.agent.symbols.user_symbols import UNKNOWN, UserSymbols
from tests.agent.burners import WAYS, addresses, compile_burner
from tests.agent.symbols.test_user_symbols import address_in, names, sleeping

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")]

WITH_ID, WITHOUT_ID = "-Wl,--build-id", "-Wl,--build-id=none"
MakeSymbols = Callable[[], UserSymbols]


@pytest.fixture
def make_symbols() -> Iterator[MakeSymbols]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(UserSymbols()))


class Root:
    """The root of a container that has one stripped program, /bin/burner."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.program = folder / "bin" / "burner"
        self.program.parent.mkdir(parents=True)
        self.symbols = folder.with_name(f"{folder.name}.symbols")
        """a file with the symbols, elsewhere"""
        whole = compile_burner(folder.with_name(f"{folder.name}.whole"), *WAYS["static"], *options)
        self.place = addresses(whole)["light"]
        subprocess.run(["objcopy", "--only-keep-debug", whole, self.symbols], check=True)
        subprocess.run(["objcopy", "-S", whole, self.program], check=True)

    @property
    def build_id_path(self) -> str:
        with self.program.open("rb") as file:
            found = build_id(file.fileno())
        return f"usr/lib/debug/.build-id/{found[:2]}/{found[2:]}.debug"

    def link(self, name: str) -> None:
        """Adds .gnu_debuglink for the symbols, as they are now."""
        named = self.symbols.with_name(name)
        if named != self.symbols:
            shutil.copy(self.symbols, named)
        subprocess.run(["objcopy", f"--add-gnu-debuglink={named}", self.program], check=True)

    def put(self, path: str, content: "bytes | None" = None) -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.symbols.read_bytes() if content is None else content)
        return target

    @contextmanager
    def running(self) -> Iterator[int]:
        with sleeping(Path("/bin/burner"), "chroot", str(self.folder)) as process:
            yield process.pid

    def name(self, symbols: UserSymbols) -> str:
        """The name of the function light in a new process."""
        with self.running() as pid:
            return names(symbols, pid, self.place)[0]


def test_a_file_is_found_by_build_id_in_the_containers_root(tmp_path: Path, make_symbols: MakeSymbols) -> None:
    root = Root(tmp_path / "root", WITH_ID)
    assert root.name(make_symbols()) == UNKNOWN
    root.put("usr/lib/debug/real.debug")
    path = root.folder / root.build_id_path
    path.parent.mkdir(parents=True)
    path.symlink_to("/usr/lib/debug/real.debug")  # in the container's root
    assert root.name(make_symbols()) == "light"


def test_a_file_is_found_by_build_id_on_the_node(
    tmp_path: Path, make_symbols: MakeSymbols, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, node = Root(tmp_path / "root", WITH_ID), Root(tmp_path / "node")
    node.put(root.build_id_path, root.symbols.read_bytes())
    assert root.name(make_symbols()) == UNKNOWN
    with node.running() as pid:
        monkeypatch.setattr(debug_files, "NODE", pid)
        assert root.name(make_symbols()) == "light"


@pytest.mark.parametrize("options", [WITH_ID, WITHOUT_ID])
@pytest.mark.parametrize("path", ["bin/{}", "bin/.debug/{}", "usr/lib/debug/bin/{}"])
def test_a_file_is_found_by_its_link(path: str, options: str, tmp_path: Path, make_symbols: MakeSymbols) -> None:
    root = Root(tmp_path / "root", options)
    root.link("burner.debug")
    assert root.name(make_symbols()) == UNKNOWN
    root.put(path.format("burner.debug"))
    assert root.name(make_symbols()) == "light"


def test_a_file_of_another_program_is_not_used(tmp_path: Path, make_symbols: MakeSymbols) -> None:
    root, other = Root(tmp_path / "root", WITH_ID), Root(tmp_path / "other", WITH_ID, "-O2")
    root.link("burner.debug")
    for path in (root.build_id_path, "bin/burner.debug", "bin/.debug/burner.debug"):
        root.put(path, other.symbols.read_bytes())
    assert root.name(make_symbols()) == UNKNOWN


def test_a_file_without_build_id_needs_the_checksum(
    tmp_path: Path, make_symbols: MakeSymbols, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Root(tmp_path / "root", WITHOUT_ID)
    root.link("burner.debug")
    content = root.symbols.read_bytes()
    target = root.put("bin/burner.debug", content + b"\0")
    assert root.name(make_symbols()) == UNKNOWN
    target.write_bytes(content)
    monkeypatch.setattr(debug_files, "MOST_SUMMED", len(content) - 1)
    assert root.name(make_symbols()) == UNKNOWN
    monkeypatch.setattr(debug_files, "MOST_SUMMED", len(content))
    assert root.name(make_symbols()) == "light"


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x02\x01", b"no ELF file" * 100])
def test_a_broken_file_names_nothing(content: bytes, tmp_path: Path, make_symbols: MakeSymbols) -> None:
    root = Root(tmp_path / "root", WITH_ID)
    root.put(root.build_id_path, content)
    assert root.name(make_symbols()) == UNKNOWN


def test_files_of_one_container_do_not_name_functions_of_another(tmp_path: Path, make_symbols: MakeSymbols) -> None:
    """Both run the same file, as from a volume. The mount namespaces differ, and only one has the symbols."""
    root = Root(tmp_path / "root", WITH_ID)
    root.put("usr/lib/debug/empty/nothing", b"")
    symbols = root.put("usr/lib/debug/symbols")
    path = root.put(root.build_id_path, b"")
    script = f"mount --bind {symbols} {path} && exec chroot {root.folder} /bin/burner 0"
    made = make_symbols()
    with sleeping(Path("/bin/burner"), "unshare", "-m", "sh", "-c", script) as process, root.running() as other:
        place = root.place
        assert names(made, process.pid, place) == ["light"]
        assert names(made, other, place) == [UNKNOWN]
        assert names(made, process.pid, place) == ["light"]


def test_the_file_is_closed_with_the_program(tmp_path: Path) -> None:
    root = Root(tmp_path / "root", WITH_ID)
    root.put(root.build_id_path)
    before = len(os.listdir("/proc/self/fd"))
    symbols = UserSymbols()
    assert root.name(symbols) == "light"
    assert len(os.listdir("/proc/self/fd")) > before + 1
    symbols.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_program_with_symbols_needs_no_file(tmp_path: Path, make_symbols: MakeSymbols) -> None:
    program = compile_burner(tmp_path / "burner", *WAYS["pie"])
    symbols = make_symbols()
    with sleeping(program) as process:
        assert names(symbols, process.pid, address_in(process.pid, program, "main")) == ["main"]
    (file,) = symbols._files.values()
    assert file.functions._debug_file is None
