"""Objects are relocated by a few of the kernel's types as by all of them."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf import kernel_types, libbpf, object
from kubectl_gadget.agent.bpf.kernel_types import (
    STRUCT,
    BtfRecords,
    NoSubsetError,
    ReadTypes,
    open_subset,
    read_types,
    subset,
)
from kubectl_gadget.agent.bpf.object import BpfObject, own_elf
from kubectl_gadget.gadgets import object_bytes
from tests.bpf.tracer import MACHINE

pytestmark = pytest.mark.bpf
_LOADS_64_BITS = 0x18


@pytest.fixture(scope="module")
def kernel() -> BtfRecords:
    return BtfRecords(Path("/sys/kernel/btf/vmlinux").read_bytes())


@pytest.fixture
def containers() -> bytes:
    return own_elf("containers")


def _instructions(elf: bytes) -> dict[str, list[tuple[int, ...]]]:
    """Those of each program once it is relocated, without the numbers of this process's maps."""
    library = ctypes.CDLL("libbpf.so.1")
    library.bpf_program__insns.restype, library.bpf_program__insn_cnt.restype = ctypes.c_void_p, ctypes.c_size_t
    loaded = BpfObject(elf, "relocated")
    try:
        with suppress(libbpf.Failure):  # some programs are for other kernels; all are relocated before one is loaded
            loaded.load()
        found = {}
        for name in loaded.program_names:
            pointer = ctypes.c_void_p(loaded.pointer(name))
            size = 8 * library.bpf_program__insn_cnt(pointer)
            instructions = struct.iter_unpack("<BBhi", ctypes.string_at(library.bpf_program__insns(pointer), size))
            found[name] = [
                (code, registers, offset, 0 if code == _LOADS_64_BITS and registers >> 4 else number)
                for code, registers, offset, number in instructions
            ]
        return found
    finally:
        loaded.close()


@pytest.mark.parametrize("name", ["trace_open", "trace_tcpdrop", "trace_exec", "policy"])
def test_relocated_programs_are_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """trace_tcpdrop reads the id of an enum, too; of all, task_struct's."""
    elf = object_bytes(name, MACHINE)
    used = []

    def some(elf: bytes) -> int | None:
        used.append(open_subset(elf, str(tmp_path)))
        return used[-1]

    monkeypatch.setattr(object, "open_subset", some)
    by_some = _instructions(elf)
    monkeypatch.setattr(object, "open_subset", lambda _: None)
    assert by_some == _instructions(elf)
    assert used != [None]


def _kept(folder: Path) -> Iterator[tuple[str, int]]:
    for file in folder.iterdir():
        yield file.name, file.stat().st_ino


def test_it_is_made_once_and_small(containers: bytes, tmp_path: Path) -> None:
    first, again = open_subset(containers, str(tmp_path)), open_subset(containers, str(tmp_path))
    assert first is not None
    assert again is not None
    assert os.path.sameopenfile(first, again)
    assert [inode for _, inode in _kept(tmp_path)] == [os.fstat(first).st_ino]
    assert os.fstat(first).st_size < 100_000
    os.close(first)
    os.close(again)


@pytest.mark.parametrize("what", ["another user's", "anyone may write", "a link"])
def test_a_file_that_somebody_else_may_have_written_is_not_used(what: str, containers: bytes, tmp_path: Path) -> None:
    made = open_subset(containers, str(tmp_path))
    assert made is not None
    os.close(made)
    (path,) = tmp_path.iterdir()
    if what == "another user's":
        os.chown(path, 65534, 65534)
    elif what == "anyone may write":
        path.chmod(0o666)
    else:
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    assert open_subset(containers, str(tmp_path)) is None


def test_a_full_folder_gets_no_more(containers: bytes, tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / str(number)).touch()
    assert open_subset(containers, str(tmp_path)) is None
    (tmp_path / "0").unlink()
    assert open_subset(containers, str(tmp_path)) is not None
    assert len(list(tmp_path.iterdir())) == 1000


def test_no_folder_no_file(containers: bytes, tmp_path: Path) -> None:
    """Also: objects load with all types then."""
    (tmp_path / "file").touch()
    assert open_subset(containers, str(tmp_path / "file" / "folder")) is None
    assert open_subset(containers, str(tmp_path / "missing")) is None
    assert not (tmp_path / "missing").exists()


def test_on_a_machine_without_a_pod_the_folder_is_made(
    containers: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    monkeypatch.setattr(kernel_types, "_HERE", str(own))
    made = open_subset(containers, str(own))
    assert made is not None
    os.close(made)
    assert own.stat().st_mode & 0o777 == 0o700


_FAR = b"\x7fELF" + bytes(36) + b"\xff" * 8 + bytes(12) + b"\x01\x00" * 3
"""Its headers of sections begin where no file has a place."""


@pytest.mark.parametrize("elf", [b"", b"\x7fELF" + bytes(200), _FAR])
def test_an_object_that_cannot_be_read_gets_all_types_each_time(elf: bytes, tmp_path: Path) -> None:
    assert open_subset(elf, str(tmp_path)) is None
    assert [file.stat().st_size for file in tmp_path.iterdir()] == [0]
    assert open_subset(elf, str(tmp_path)) is None


def test_a_subset_is_valid_for_one_boot_and_one_set_of_modules(
    containers: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (["vmlinux"], ["nfs", "vmlinux"]):
        monkeypatch.setattr(kernel_types.procfs, "listed", lambda _, name=name: name)
        made = open_subset(containers, str(tmp_path))
        assert made is not None
        os.close(made)
    assert len([*tmp_path.iterdir()]) == 2


def test_a_type_that_a_module_may_have_needs_all(kernel: BtfRecords) -> None:
    here, there = (b"task_struct", STRUCT), (b"of_some_module", STRUCT)
    read = ReadTypes(frozenset({here, there}), frozenset())
    assert subset(kernel, read, [])
    assert subset(kernel, read, [b"\0of_another\0"])
    with pytest.raises(NoSubsetError):
        subset(kernel, read, [b"\0of_some_module\0"])
    # The module's BTF may refer to a name among the kernel's strings.
    with pytest.raises(NoSubsetError):
        subset(kernel, ReadTypes(frozenset({(b"pid_type", STRUCT)}), frozenset()), [b"\0"])


def test_ids_that_are_read_stay_the_same(kernel: BtfRecords, containers: bytes) -> None:
    read = read_types(object_bytes("trace_open", MACHINE))
    assert b"task_struct" in read.numbers
    (before,) = (id for ids in kernel.named.values() for id in ids if _is_task(kernel, id))
    few = BtfRecords(subset(kernel, read, []))
    assert _name(few, before) == b"task_struct"
    assert few.record(before)[2] == kernel.record(before)[2]
    assert len(few.starts) < len(kernel.starts) / 20


def _is_task(records: BtfRecords, id: int) -> bool:
    return records.head(id)[1] == STRUCT and _name(records, id) == b"task_struct"


def _name(records: BtfRecords, id: int) -> bytes:
    return records.text(records.head(id)[0])
