"""Compiled test programs, and the agent's own BPF object, built from the sources as they are now."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kubectl_gadget.gadgets.compiler import compile_object
from kubectl_gadget.wire.frames import FrameType
from tests.agent.burners import COMPILED, OF_BPF, compile_often_used
from tests.agent.client import Client
from tests.gadget_run import PROJECT

PROGRAMS = Path(__file__).parent / "programs"


class Compiled(NamedTuple):
    """A compiled BPF object and where its variables lie."""

    elf: bytes
    variables: dict[str, dict[str, int]]

    def gadget(self, *programs: str, **more: Any) -> dict[str, Any]:
        """RUN's description of a gadget that needs all of `programs`."""
        entries = [{"any_of": [[program]]} for program in programs]
        return {"name": "opens", "programs": entries, "globals": self.variables} | more


@pytest.fixture(scope="session")
def opens(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """tests/agent/programs/opens.bpf.c, compiled."""
    target = tmp_path_factory.mktemp("bpf") / "opens.bpf.o"
    compile_bpf(PROGRAMS / "opens.bpf.c", target)
    table = subprocess.run(["nm", "-S", str(target)], capture_output=True, text=True, check=True).stdout
    variables = {
        name: {"offset": int(offset, 16), "size": int(size, 16)}
        for offset, size, name in re.findall(r"^(\w+) (\w+) R (\w+)$", table, re.MULTILINE)
    }
    return Compiled(target.read_bytes(), variables)


@pytest.fixture(scope="session", autouse=True)
def own_objects() -> None:
    """The agent's own objects, where the agent looks for them; compiled when the build has not been run since a
    change. Nothing can be written in a virtual machine."""
    if not os.access(PROJECT, os.W_OK):
        return
    for name in ("containers", "packets", "syscalls", "symbols"):
        target = PROJECT / "kubectl_gadget" / "built" / "objects" / os.uname().machine / f"{name}.bpf.o"
        source = PROJECT / "bpf" / f"{name}.bpf.c"
        if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
            target.parent.mkdir(parents=True, exist_ok=True)
            compile_bpf(source, target)


def compile_bpf(source: Path, target: Path, architecture: str = "") -> None:
    made = Path(os.environ.get(COMPILED, "/nowhere")) / target.name
    if made.exists():
        shutil.copy(made, target)
    else:
        compile_object(source, architecture or os.uname().machine, target)


def compiled_objects(architecture: str = "") -> Path:
    """The folder with what tests compile by clang and, for this architecture, by gcc."""
    folder = PROJECT / "build" / (architecture or os.uname().machine)
    folder.mkdir(parents=True, exist_ok=True)
    for source in (PROGRAMS / "opens.bpf.c", OF_BPF / "slow_tracer.bpf.c"):
        compile_bpf(source, folder / source.with_suffix(".o").name, architecture)
    if not architecture:
        compile_often_used(folder)
    return folder


class Opener:
    """A process that opens a file as often as it is asked to, and does nothing else."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    @property
    def pid(self) -> int:
        return self.process.pid

    def begin(self, times: int) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"%d\n" % times)
        self.process.stdin.flush()

    def end(self) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline() == b"done\n"

    def open(self, times: int) -> None:
        self.begin(times)
        self.end()


@pytest.fixture(scope="session")
def opener_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("opener") / "opener"
    subprocess.run(["gcc", "-O2", "-static", str(PROGRAMS / "opener.c"), "-o", str(target)], check=True)
    return target


@pytest.fixture
def opener(opener_program: Path) -> Iterator[Opener]:
    opener = Opener(opener_program)
    yield opener
    opener.process.kill()
    opener.process.communicate()


@pytest.fixture
def client() -> Iterator[Client]:
    """A session that has said HELLO."""
    with Client() as client:
        client.wait_for(FrameType.HELLO)
        yield client
