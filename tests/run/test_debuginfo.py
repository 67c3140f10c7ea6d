"""Names from a folder and from a debuginfod server, for a program compiled here."""

import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from kubectl_gadget.agent.elf import build_id
from kubectl_gadget.rows.stacks import NodeStacks, stack_of
from kubectl_gadget.run import debuginfo
from kubectl_gadget.run.debuginfo import debug_names
from kubectl_gadget.wire.agent_messages import StackNames
from tests.agent.burners import PROGRAMS, addresses, compile_c

pytestmark = pytest.mark.skipif(not shutil.which("objcopy"), reason="needs objcopy")


class Program:
    """A program, the file with its symbols, and how frames of its functions are sent."""

    def __init__(self, folder: Path, *options: str) -> None:
        whole = compile_c(folder / "whole", PROGRAMS / "burner.c", "-O1", "-Wl,--build-id", *options)
        subprocess.run(["objcopy", "--only-keep-debug", whole, folder / "symbols"], check=True)
        self.symbols = (folder / "symbols").read_bytes()
        with whole.open("rb") as file:
            self.build_id = build_id(file.fileno())
        self.addresses = addresses(whole)

    def frame(self, function: str, past: int = 1) -> str:
        return f"[unknown]\t/bin/x\t0x123\t{self.build_id}\t{self.addresses[function] + past:#x}"

    def in_folder(self, top: Path, path: str = "") -> Path:
        target = top / (path or f".build-id/{self.build_id[:2]}/{self.build_id[2:]}.debug")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.symbols)
        return top


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def named(place: "Path | str", *frames: str) -> list[str]:
    warnings: list[str] = []
    found = debug_names(str(place), warnings.append).named(frames)
    assert not warnings
    return found


@pytest.mark.parametrize("path", ["", "any/name.so", "xx.debug"])
def test_functions_are_named_from_a_folder(path: str, program: Program, tmp_path: Path) -> None:
    folder = program.in_folder(tmp_path / "files", path)
    (folder / "text").write_text("no ELF file")
    os.mkfifo(folder / "pipe")
    known = "read\t/lib/libc.so\t"
    found = named(folder, program.frame("heavy"), known, program.frame("light"))
    assert found == ["heavy\t/bin/x\t", known, "light\t/bin/x\t"]


def test_a_file_with_another_build_id_names_nothing(program: Program, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Program(tmp_path / "other", "-O2")
    assert other.build_id != program.build_id
    folder = tmp_path / "files" / ".build-id" / program.build_id[:2]
    folder.mkdir(parents=True)
    (folder / f"{program.build_id[2:]}.debug").write_bytes(other.symbols)
    assert named(tmp_path / "files", program.frame("heavy")) == [program.frame("heavy")]


def test_frames_that_no_agent_sends_stay_as_they_are(program: Program, tmp_path: Path) -> None:
    folder = program.in_folder(tmp_path / "files")
    code = program.frame("heavy").split("\t")
    frames = [
        "[unknown]\t/bin/x\t0x123",
        "\t".join(code[:4]),
        "\t".join([*code, "more"]),
        "\t".join([*code[:3], "../../etc/passwd", code[4]]),
        "\t".join([*code[:4], "-1"]),
        "\t".join([*code[:4], "0x" + "0" * 17]),
        "\t".join(["main", *code[1:]]),
    ]
    assert named(folder, *frames) == frames


def test_stacks_with_equal_names_become_one(program: Program, tmp_path: Path) -> None:
    names = debug_names(str(program.in_folder(tmp_path / "files")), print)
    stacks, frames = NodeStacks(), (program.frame("heavy", 1), program.frame("heavy", 2))
    stacks.apply(StackNames(gadget=0, first=0, frames=frames, stacks={5: (0,), 6: (1,)}), names.named)
    assert stacks._numbers[5] == stacks._numbers[6]
    (frame,) = stack_of(stacks._numbers[5]) or ()
    assert frame.text() == "heavy (x)"


# A server


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with `files` by path, or with an error's number."""

    files: ClassVar[dict[str, "bytes | int"]] = {}
    asked: ClassVar[list[str]] = []
    hold = threading.Event()
    waits: ClassVar[bool] = False
    """all answers wait for `hold`"""

    def do_GET(self) -> None:
        self.asked.append(self.path)
        content = self.files.get(self.path, 404)
        if content == b"never" or self.waits:
            self.hold.wait(60)
        if isinstance(content, int):
            self.send_error(content)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Handler.files, Handler.asked, Handler.hold, Handler.waits = {}, [], threading.Event(), False
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.server_port}/debug"
        finally:
            Handler.hold.set()
            made.shutdown()
            thread.join()


def put(program: Program, content: "bytes | int | None" = None) -> None:
    Handler.files[f"/debug/buildid/{program.build_id}/debuginfo"] = program.symbols if content is None else content


def cached(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "cache" / "kubectl-gadget" / "debuginfod"))


def test_functions_are_named_from_a_server_which_is_asked_once(program: Program, server: str, tmp_path: Path) -> None:
    put(program)
    for _ in range(2):
        assert named(f"{server}/", program.frame("heavy")) == ["heavy\t/bin/x\t"]
    assert Handler.asked == [f"/debug/buildid/{program.build_id}/debuginfo"]
    assert cached(tmp_path) == [f"{program.build_id}.debug"]


def test_a_file_that_a_server_lacks_is_no_error(program: Program, server: str) -> None:
    assert named(server, program.frame("heavy")) == [program.frame("heavy")]
    assert len(Handler.asked) == 1


@pytest.mark.parametrize(
    ("answer", "why"),
    [(500, "HTTP 500"), (b"no ELF file", "something else"), (b"", "something else"), (bytes(5000), "more than 4,000")],
)
def test_a_servers_errors_are_said_once_and_nothing_is_kept(
    answer: "bytes | int", why: str, program: Program, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debuginfo, "MOST_BYTES", 4000)
    put(program, answer)
    warnings: list[str] = []
    names = debug_names(server, warnings.append)
    for _ in range(2):
        assert names.named([program.frame("heavy")]) == [program.frame("heavy")]
    assert len(Handler.asked) == 1
    (warning,) = warnings
    assert why in warning
    assert warning.startswith(f"--debuginfo {server}: ")
    assert not (tmp_path / "cache" / "kubectl-gadget").exists() or not cached(tmp_path)


def test_a_server_that_does_not_answer_is_waited_for_only_for_some_time(
    program: Program, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debuginfo, "MOST_SECONDS", 0.2)
    put(program, b"never")
    warnings: list[str] = []
    assert debug_names(server, warnings.append).named([program.frame("heavy")]) == [program.frame("heavy")]
    assert len(warnings) == 1
    assert not Handler.hold.is_set()


def test_the_user_is_told_that_a_run_waits(program: Program, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debuginfo, "SAID_AFTER", 0.0)
    put(program)
    warnings: list[str] = []

    def warn(text: str) -> None:
        warnings.append(text)
        Handler.hold.set()

    Handler.waits = True
    assert debug_names(server, warn).named([program.frame("heavy")]) == ["heavy\t/bin/x\t"]
    assert warnings == [f"--debuginfo {server}: waiting for debug files, 60 s at most"]


def test_no_server_is_an_error_that_names_its_cause(program: Program, server: str) -> None:
    warnings: list[str] = []
    url = "http://127.0.0.1:1"
    assert debug_names(url, warnings.append).named([program.frame("heavy")]) == [program.frame("heavy")]
    (warning,) = warnings
    assert warning == f"--debuginfo {url}: Connection refused; some functions have no names"


def test_the_cache_is_bounded_and_what_was_used_last_is_kept(
    program: Program, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(program)
    folder = tmp_path / "cache" / "kubectl-gadget" / "debuginfod"
    folder.mkdir(parents=True)
    for name, age in (("old.debug", 300), ("new.debug", 100), ("killed.part", 10000), ("loading.part", 10)):
        (folder / name).write_bytes(bytes(1000))
        moment = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (moment, moment))
    monkeypatch.setattr(debuginfo, "MOST_CACHED", len(program.symbols) + 1500)
    assert named(server, program.frame("heavy")) == ["heavy\t/bin/x\t"]
    assert cached(tmp_path) == sorted([f"{program.build_id}.debug", "loading.part", "new.debug"])


def test_a_cached_file_that_was_changed_is_loaded_again(program: Program, server: str, tmp_path: Path) -> None:
    put(program)
    folder = tmp_path / "cache" / "kubectl-gadget" / "debuginfod"
    folder.mkdir(parents=True)
    (folder / f"{program.build_id}.debug").write_bytes(b"cut")
    assert named(server, program.frame("heavy")) == ["heavy\t/bin/x\t"]
