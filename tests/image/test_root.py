"""How the lower layer is made of what mmdebstrap writes, with a double in its place. It hangs up its process group
when it cannot write, as the real one does."""

import io
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from root import root_layer

DOUBLE = """#!{python}
import os, signal, sys, time
for number in (signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
archive = open({archive!r}, "rb").read()
def write(part):
    try:
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        open({broken!r}, "w").close()
        os.killpg(os.getpgrp(), signal.SIGHUP)
        os._exit(25)
write(archive)
{then}
"""
PADDING = "time.sleep(0.5); write(bytes(1 << 20))"
"""More than a pipe holds, as of an archive in blocks of another size than the reader's."""


@pytest.fixture
def mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes it: it writes an archive, or half of one, and then does something. The file that it leaves when it could
    not write."""

    def make(then: str, whole: bool = True, path: str = "./usr/bin/python3") -> Path:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            member = tarfile.TarInfo(path)
            member.size = 6000
            tar.addfile(member, io.BytesIO(b"no no\n" * 1000))
        data = made.getvalue()
        (tmp_path / "archive").write_bytes(data if whole else data[:3000])
        broken = tmp_path / "broken"
        program = tmp_path / "bin" / "mmdebstrap"
        program.parent.mkdir()
        program.write_text(
            DOUBLE.format(python=sys.executable, archive=str(tmp_path / "archive"), broken=str(broken), then=then)
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return broken

    return make


def names(layer: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        return [member.name for member in tar if member.isreg()]


def test_what_follows_the_archive_is_read_as_well(mmdebstrap: Callable[..., Path]) -> None:
    broken = mmdebstrap(PADDING)
    assert names(root_layer("amd64", "default", 0)) == ["usr/bin/python3", "var/lib/dpkg/status"]
    assert not broken.exists()


@pytest.mark.parametrize("whole", [True, False])
def test_its_failure_is_reported(mmdebstrap: Callable[..., Path], whole: bool) -> None:
    mmdebstrap("sys.exit(25)", whole)
    with pytest.raises(SystemExit, match="image: mmdebstrap ended with 25"):
        root_layer("amd64", "default", 0)


def test_without_it_is_reported_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="try: apt-get install mmdebstrap"):
        root_layer("amd64", "default", 0)


def test_after_giving_up_its_hangup_reaches_no_other_process(mmdebstrap: Callable[..., Path]) -> None:
    """Otherwise it would end these tests, and the make that runs them."""
    broken = mmdebstrap(PADDING, path="./usr/lib/python3/no.py")
    with pytest.raises(SystemExit, match=r"image: /usr/lib/python3/no\.py does not compile"):
        root_layer("amd64", "default", 0)
    assert broken.exists()
