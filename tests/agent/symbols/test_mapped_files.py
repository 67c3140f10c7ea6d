"""What takes the place of a mapped file, between the search for it and its use, is neither opened nor waited for."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.agent.symbols.uprobes import MappedFile, MappedFiles
from tests.bpf import fuse

pytestmark = pytest.mark.root


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Path]:
    """A program that runs."""
    copy = tmp_path / "root" / "mapped-sleep"
    copy.parent.mkdir()
    copy.write_bytes(Path("/bin/sleep").read_bytes())
    copy.chmod(0o755)
    with subprocess.Popen([copy, "1000"]) as process:
        try:
            yield copy
        finally:
            process.kill()


def found(program: Path) -> MappedFile:
    files = MappedFiles(lambda _: True, lambda name: name == program.name).look().values()
    (file,) = [one for one in files if one.path == str(program)]
    return file


def test_the_file_that_was_found_is_opened(program: Path) -> None:
    with os.fdopen(found(program).open(), "rb") as file:
        assert file.read(4) == b"\x7fELF"
        assert os.path.samestat(os.fstat(file.fileno()), program.stat())


@pytest.mark.parametrize("other", ["pipe", "device", "file", "link"])
def test_another_file_in_its_place_is_not_opened(program: Path, other: str) -> None:
    file = found(program)
    program.unlink()
    if other == "pipe":
        os.mkfifo(program)
    elif other == "device":
        os.mknod(program, 0o20600, os.makedev(1, 3))
    elif other == "file":
        program.write_bytes(Path("/bin/sleep").read_bytes())
    else:
        program.symlink_to("/bin/sleep")
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match=r"regular|Stale"):
        file.open()
    assert len(os.listdir("/dev/fd")) == before


def test_a_file_on_a_fuse_file_system_is_not_opened(program: Path) -> None:
    file = found(program)
    with fuse.mounted(program.parent / "served", {"file": b"text"}, {fuse.LOOKUP, fuse.GETATTR, fuse.OPEN}) as server:
        program.unlink()
        program.symlink_to("served/file")
        with pytest.raises(OSError, match="may not answer") as error:
            file.open()
        assert error.value.errno == errno.EREMOTEIO
        assert set(server.asked) <= {fuse.INIT}
