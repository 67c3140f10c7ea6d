"""Ways to hide from gadgets, as docs/evasions.md lists them: which are seen, and which are not.

Others are tried beside the gadget that they are about; those against policies in test_policy_evasions.py.
"""

import ctypes
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.deeds import syscall
from tests.bpf.test_policy_evasions import CLONE_NEWPID, READS, Way, unshare
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TEXT = (Path(__file__).parents[2] / "docs" / "evasions.md").read_text()
BPF = 321 if deeds.X86 else 280
MAP_UPDATE_ELEM, MAP_GET_NEXT_ID, MAP_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD = 2, 12, 14, 15
UNWANTED = 2


@pytest.fixture
def secret() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "folder"
        folder.mkdir()
        (folder / "secret").write_text("secret")
        yield folder / "secret"


def of_the_docs() -> dict[str, dict[bool, bool]]:
    """By the way's name: whether it is seen with --resolve, and without."""
    row = re.compile(r"^\| (.+?) \| (seen|not seen)[^|]* \| (seen|not seen)[^|]* \| [^|]* \|$", re.MULTILINE)
    return {way: {True: first == "seen", False: second == "seen"} for way, first, second in row.findall(TEXT)}


@pytest.mark.parametrize("resolve", [True, False])
@pytest.mark.parametrize("way", READS, ids=lambda way: way.deed.__name__)
def test_a_way_to_a_file_is_seen_as_the_table_says(way: Way, resolve: bool, secret: Path) -> None:
    with Tracer("trace_open", path=str(secret), resolve=resolve) as tracer:
        _, code = deeds.in_child(functools.partial(way.deed, secret))
        found = tracer.records()
    if code:
        pytest.skip("this way does not work here at all")
    assert bool(found) == of_the_docs()[way.told][resolve]


def test_the_table_of_the_docs_is_what_is_tried() -> None:
    assert list(of_the_docs()) == [way.told for way in READS]


def test_the_tests_that_the_docs_name_exist() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", TEXT))
    assert len(named) > 5
    assert not [name for name in named if not (Path(__file__).parents[2] / name).is_file()]


def executed(deed: Callable[[], object]) -> list[dict[str, Any]]:
    with Tracer("trace_exec") as tracer:
        pid, _ = deeds.in_child(deed)
        return [record for record in tracer.records() if record["pid"] == pid]


def test_a_program_in_memory_alone_is_seen_as_such() -> None:
    def runs() -> None:
        fd = os.memfd_create("hidden", 0)
        os.write(fd, Path("/bin/true").read_bytes())
        os.execve(fd, ["x"], {})

    (record,) = executed(runs)
    assert (record["exe"], record["args"]) == ("/memfd:hidden", ["x"])


def test_the_loader_is_seen_with_the_program_that_it_loads() -> None:
    loader = next(Path("/lib64").glob("ld-linux-*"))
    (record,) = executed(lambda: os.execv(loader, [str(loader), "/bin/true"]))
    assert (record["exe"], record["args"]) == (str(loader.resolve()), [str(loader), "/bin/true"])


def test_a_script_is_seen_with_its_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n:\n")
    script.chmod(0o755)
    (record,) = executed(lambda: os.execv(script, ["innocent"]))
    assert (record["path"], record["args"]) == (str(script), ["/bin/sh", str(script)])


def test_arguments_are_those_of_the_exec_whatever_the_program_writes_over_them() -> None:
    overwrite = (
        "stat = open('/proc/self/stat').read().split(') ')[1].split(); memory = open('/proc/self/mem', 'r+b', 0);"
        "memory.seek(int(stat[45])); memory.write(b'other');"
        "assert open('/proc/self/cmdline').read().startswith('other')"
    )
    with Tracer("trace_exec") as tracer:
        pid, code = deeds.in_child(lambda: os.execv("/usr/bin/python3", ["guilty", "-c", overwrite]))
        (record,) = [record for record in tracer.records() if record["pid"] == pid]
    assert code == 0
    assert record["args"] == ["guilty", "-c", overwrite]


def test_a_nested_pid_namespace_changes_no_number(secret: Path) -> None:
    """Nor does a process that is number 1 there."""

    def nests() -> None:
        unshare(CLONE_NEWPID)
        _, code = deeds.in_child(lambda: os.getpid() == 1 and secret.read_bytes())
        assert code == 0

    with Tracer("trace_open", path=str(secret)) as tracer:
        pid, code = deeds.in_child(nests)
        (record,) = tracer.records()
    assert code == 0
    assert (record["ppid"], record["container_pid"]) == (pid, 1)
    assert record["pid"] > pid


def test_a_thread_takes_another_name_and_the_filter_by_name_misses_it(secret: Path) -> None:
    def renamed() -> None:
        deeds.name_thread("innocent")
        secret.read_bytes()

    with Tracer("trace_open", path=str(secret), comm="python") as tracer:
        assert deeds.in_child(renamed)[1] == 0
        assert tracer.records() == []


def test_a_process_that_may_change_bpf_maps_hides_and_trace_bpf_shows_it(secret: Path) -> None:
    """Takes CAP_SYS_ADMIN of the node's own users: the map of wanted containers is written to."""

    def hides() -> None:
        cgroup = Path("/sys/fs/cgroup" + Path("/proc/self/cgroup").read_text().strip().split("::")[1]).stat().st_ino
        for fd in maps("verdicts"):
            write(fd, cgroup, UNWANTED)
        secret.read_bytes()

    with Tracer("trace_bpf") as watch, Tracer("trace_open", path=str(secret)) as tracer:
        secret.read_bytes()
        pid, code = deeds.in_child(hides)
        seen = [record["pid"] for record in tracer.records()]
        commands = {record["command"] for record in watch.records() if record["pid"] == pid}
    assert code == 0
    assert seen == [os.getpid()]
    assert MAP_GET_FD_BY_ID in commands


def bpf(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    return syscall(BPF, command, attributes, len(attributes))


def maps(name: str) -> Iterator[int]:
    """Descriptors of all maps of that name."""
    number = 0
    while True:
        attributes = ctypes.create_string_buffer(number.to_bytes(4, "little"), 12)
        if bpf(MAP_GET_NEXT_ID, attributes) < 0:
            return
        number = int.from_bytes(attributes.raw[4:8], "little")
        fd = bpf(MAP_GET_FD_BY_ID, ctypes.create_string_buffer(number.to_bytes(4, "little"), 12))
        if fd < 0:
            continue
        info = ctypes.create_string_buffer(88)
        asked = fd.to_bytes(4, "little") + (88).to_bytes(4, "little") + ctypes.addressof(info).to_bytes(8, "little")
        bpf(OBJ_GET_INFO_BY_FD, ctypes.create_string_buffer(asked, 16))
        if info.raw[24:40].rstrip(b"\0").decode() == name:
            yield fd
        else:
            os.close(fd)


def write(fd: int, key: int, value: int) -> None:
    memory = ctypes.create_string_buffer(key.to_bytes(8, "little") + value.to_bytes(8, "little"), 16)
    at = ctypes.addressof(memory)
    words = (fd, at, at + 8, 0)
    bpf(MAP_UPDATE_ELEM, ctypes.create_string_buffer(b"".join(word.to_bytes(8, "little") for word in words), 32))


def test_a_deep_folder_cuts_the_path_and_says_so(secret: Path) -> None:
    deep = secret.parent.joinpath(*["d"] * 120)
    deep.mkdir(parents=True)
    shutil.copy(secret, deep / "secret")
    with Tracer("trace_open", path="/elsewhere/", resolve=True) as tracer:
        subprocess.run(["cat", "secret"], cwd=deep, check=True, capture_output=True)
        found = [record["resolved"] for record in tracer.records() if record["path"] == "secret"]
    # Its upper part is not known, so the filter does not leave it out.
    assert [path[:2] for path in found] == ["…/"]
