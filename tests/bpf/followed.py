"""A program in a cgroup of its own, whose libraries alone are followed by uprobes: libc is in use everywhere."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.host import cgroups
from kubectl_gadget.agent.symbols.uprobes import Uprobes
from kubectl_gadget.wire.client_messages import Library
from tests.bpf.stacks import StackAnswers


@contextmanager
def waiting(*command: str | Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for its first byte, in a cgroup `followed-PID`."""
    folder = Path(cgroups.find_root()) / f"followed-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    starter = f'echo $$ > {folder}/cgroup.procs; exec "$@"'
    process = subprocess.Popen(
        ["sh", "-c", starter, "sh", *map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        wait_for_read(process.pid, str(command[0]))
        yield process
    finally:
        process.kill()
        process.communicate()
        folder.rmdir()


def wait_for_read(pid: int, program: str) -> None:
    """Until it sleeps in the program itself."""
    name = Path(program).name
    while True:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if Path(os.fsdecode(words[0])).name == name and state == "S":
            return


class Followed(StackAnswers):
    """A gadget with uprobes that only go to libraries of processes in that cgroup."""

    def _open(self, programs: Any) -> Any:
        object = super()._open(programs)
        libraries = [Library(files=tuple(item.files), functions=item.functions) for item in self.gadget.agent.libraries]
        self.uprobe_warnings: list[str] = []
        self.uprobes = Uprobes(
            object, libraries, lambda cgroup: cgroup.endswith(f"/followed-{os.getpid()}"), self.uprobe_warnings.append
        )
        self.uprobes.prepare()
        return object

    def look(self) -> None:
        """As the session does, without its pause."""
        self.uprobes._next = 0.0
        try:
            self.uprobes.turn(time.monotonic())
        except Failure as failure:
            pytest.skip(f"no uprobes here: {failure}")
        assert self.uprobe_warnings == []
        assert self.uprobes.attached

    def __exit__(self, *error: Any) -> None:
        self.uprobes.close()
        super().__exit__(*error)


def go(process: "subprocess.Popen[bytes]") -> None:
    """Lets it do its deed, and waits for the end of that."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"x")
    process.stdin.flush()
    assert process.stdout.read(1)
