"""Arguments of system calls as text, without a kernel."""

import re
import struct
from pathlib import Path

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import ARCHITECTURES
from kubectl_gadget.linux.syscalls import (
    KILLED,
    argument_texts,
    arguments,
    kernel_table,
    name_in_64_bits,
    result_text,
    select,
    syscall_name,
    syscall_names,
)

HEADER = Path(__file__).parents[2] / "bpf" / "include" / "kernel" / "syscalls.h"
RENAMED = {"newstat": "stat", "newfstat": "fstat", "newlstat": "lstat", "sendfile64": "sendfile", "umount": "umount2"}
RENAMED |= {"newuname": "uname", "arm64_personality": "personality", "fadvise64_64": "fadvise64"}


def texts(name: str, *values: int, result: int | None = 0, data: dict[int, bytes] = {}, machine: str = "x86_64") -> str:  # noqa: B006
    number = next(number for number, known in syscall_names(machine).items() if known == name)
    passed = [value & (1 << 64) - 1 for value in values] + [0] * (6 - len(values))
    return ", ".join(argument_texts(machine, number, result, passed, [data.get(index) for index in range(6)]))


def test_addresses_that_calls_return_are_in_hex_and_numbers_are_not() -> None:
    numbers = {name: number for number, name in syscall_names("x86_64").items()}
    assert result_text("x86_64", numbers["brk"], 701206528) == "0x29cb9000"
    assert result_text("x86_64", numbers["read"], 701206528) == "701206528"
    assert result_text("x86_64", numbers["brk"], -12) == result_text("x86_64", numbers["exit"], None) == "-"


@pytest.mark.parametrize("index", range(len(ARCHITECTURES)))
def test_the_numbers_are_those_that_the_programs_have(index: int) -> None:
    part = re.split(r"#elif", HEADER.read_text())[index]
    known = {int(number): name for name, number in re.findall(r"(\w+)=(\d+) ", part)}
    assert {number: RENAMED.get(name, name) for number, name in known.items()} == syscall_names(ARCHITECTURES[index])


def test_a_number_without_a_name_is_shown_as_it_is() -> None:
    assert (syscall_name(1000), syscall_name(-1)) == ("1000", "")
    assert len(argument_texts("x86_64", 1000, 0, [1, 2, 3, 4, 5, 6], [None] * 6)) == 6


def test_every_call_with_arguments_exists_somewhere() -> None:
    assert arguments().keys() <= {name for machine in ARCHITECTURES for name in syscall_names(machine).values()}


def test_paths_flags_and_directories() -> None:
    path = {1: b"/etc/a\nb\xff"}
    assert texts("openat", -100, 1, 0o2000000, 0o777, data=path) == 'AT_FDCWD, "/etc/a\\nb\\xff", O_RDONLY|O_CLOEXEC'
    assert texts("openat", 7, 1, 0o101, 0o640, data=path) == '7, "/etc/a\\nb\\xff", O_WRONLY|O_CREAT, 0640'


def test_data_that_goes_on_is_marked() -> None:
    assert texts("write", 1, 99, 5, data={1: b"hello"}) == '1, "hello", 5'
    assert texts("write", 1, 99, 9, data={1: b"hello"}) == '1, "hello"..., 9'
    assert texts("read", 1, 99, 9, result=5, data={1: b"hello"}) == '1, "hello", 9'
    assert texts("read", 1, 99, 9, result=0) == '1, "", 9'
    assert texts("read", 1, 99, 9, result=-11) == "1, 0x63, 9"


def test_addresses_of_sockets() -> None:
    v4 = struct.pack("<H", 2) + struct.pack(">H", 80) + bytes([10, 0, 0, 1]) + bytes(8)
    v6 = struct.pack("<H", 10) + struct.pack(">HI", 443, 0) + bytes(15) + b"\1" + bytes(4)
    assert texts("connect", 3, 1, 16, data={1: v4}) == "3, 10.0.0.1:80, 16"
    assert texts("connect", 3, 1, 28, data={1: v6}) == "3, [::1]:443, 28"
    assert texts("connect", 3, 1, 9, data={1: b"\1\0/run/a\0"}) == '3, unix:"/run/a", 9'
    assert texts("connect", 3, 1, 16, data={}) == "3, 0x1, 16"


def test_arguments_that_are_not_plain_numbers_have_formats_of_their_own() -> None:
    assert texts("execve", 1, 2, 3, data={0: b"/bin/ls", 1: b"ls\0-l a\0"}) == '"/bin/ls", ["ls", "-l a"], 0x3'
    assert texts("pipe2", 1, 0o2000000, data={0: struct.pack("<ii", 3, 4)}) == "[3, 4], O_CLOEXEC"
    assert texts("nanosleep", 1, 0, data={0: struct.pack("<qq", 1, 5)}) == "1.000000005s, NULL"
    assert texts("kill", 12, 9) == "12, SIGKILL"
    assert texts("futex", 16, 128, 2) == "0x10, WAIT|PRIVATE, 2, NULL, NULL, 0".replace("WAIT", "FUTEX_WAIT")
    assert texts("clone", 17) == "SIGCHLD, NULL, NULL, NULL, NULL"
    assert texts("unshare", 0x10000000) == "CLONE_NEWUSER"
    assert texts("openat2", -100, 1, 2, 24, data={1: b"x", 2: struct.pack("<QQQ", 0o100, 0o600, 8)}) == (
        'AT_FDCWD, "x", {O_RDONLY|O_CREAT, 0o600, 0x8}, 24'
    )


def test_lists_of_calls_have_names_and_classes() -> None:
    assert select("read, write") == {"read", "write"}
    assert {"openat", "rename", "execve"} < select("%file")
    assert "openat" not in select("%network")
    with pytest.raises(UsageError, match="opnat"):
        select("opnat")


def test_the_kernels_table_marks_what_is_wanted() -> None:
    table = kernel_table("x86_64", {"openat"})
    entries = [table[at : at + 8] for at in range(0, len(table), 8)]
    assert entries[257] == "-s------"[:7] + "1"
    assert [entry[7] for entry in entries].count("1") == 1
    assert kernel_table("aarch64")[221 * 8 : 222 * 8] == "sv----E1"


def test_the_end_by_a_signal_is_reported_in_words() -> None:
    assert argument_texts("x86_64", KILLED, None, (11, 1, 0, 0, 0, 0), [None] * 6) == [
        "killed by SIGSEGV (core dumped)"
    ]
    assert argument_texts("x86_64", KILLED, None, (9, 0, 0, 0, 0, 0), [None] * 6) == ["killed by SIGKILL"]


# Calls of 32-bit programs: the table of bpf/include/kernel/compat_syscalls.h has the client's names.


COMPAT_HEADER = Path(__file__).parents[2] / "bpf" / "include" / "kernel" / "compat_syscalls.h"
FIRST_COMMON = 424
AT = {"open", "creat", "unlink", "rmdir", "mkdir", "mknod", "chmod", "chown", "lchown", "readlink", "access", "rename"}
"""Calls of arm32 that arm64 has only with a directory."""


def entries(table: str, architecture: str) -> dict[int, int]:
    section = re.split(r"#(?:if|elif|else|endif).*", COMPAT_HEADER.read_text().split("clang-format off")[1])
    text = section[1 if architecture == "x86" else 2]
    found = re.search(rf"{table}\[\w+\] GADGET_TABLE = {{(.*?)}};", text, re.DOTALL)
    assert found
    pairs = re.findall(r"\[(\d+)\] = [NH]\((\d+)", found[1])
    return {int(number): int(native) for number, native in pairs}


@pytest.mark.parametrize(("architecture", "abi", "native"), [("x86", "i386", "x86_64"), ("arm64", "arm32", "aarch64")])
def test_each_call_is_the_64_bit_call_of_its_name(architecture: str, abi: str, native: str) -> None:
    own, names = syscall_names(abi), syscall_names(native)
    found = entries("gadget_compat_calls", architecture)
    assert len(found) > 300
    different = {}
    for number, call in found.items():
        name = own[number]
        if names[call] not in (name, name_in_64_bits(name)):
            different[name] = names[call]
    if architecture == "x86":
        assert different == {}
    else:
        expected = {"dup2": "dup3", "creat": "openat", "rmdir": "unlinkat", "link": "linkat", "symlink": "symlinkat"}
        expected |= {name: f"f{name}at" for name in ("chmod", "chown", "access")} | {"lchown": "fchownat"}
        expected |= {"utimes": "utimensat", "futimesat": "utimensat"}
        expected |= {"chown32": "fchownat", "lchown32": "fchownat"}
        expected |= {name: f"{name}at" for name in ("open", "unlink", "mkdir", "mknod", "readlink", "rename")}
        assert different == expected


@pytest.mark.parametrize(("architecture", "abi", "native"), [("x86", "i386", "x86_64"), ("arm64", "arm32", "aarch64")])
def test_no_call_that_both_have_is_missing(architecture: str, abi: str, native: str) -> None:
    found = entries("gadget_compat_calls", architecture)
    both = set(syscall_names(native).values())
    missing = {
        name
        for number, name in syscall_names(abi).items()
        if number < FIRST_COMMON and name in both and number not in found
    }
    # Their arguments differ in ways that no gadget needs.
    assert missing <= {"select", "readahead", "fadvise64", "sync_file_range", "statfs64", "fstatfs64"}
