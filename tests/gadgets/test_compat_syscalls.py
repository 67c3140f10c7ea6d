"""The 64-bit calls of 32-bit programs' calls (bpf/include/kernel/compat_syscalls.h), against the client's names."""

import re
from pathlib import Path

import pytest

from kubectl_gadget.linux.syscalls import name_in_64_bits, syscall_names

HEADER = Path(__file__).parents[2] / "bpf" / "include" / "kernel" / "compat_syscalls.h"
FIRST_COMMON = 424
AT = {"open", "creat", "unlink", "rmdir", "mkdir", "mknod", "chmod", "chown", "lchown", "readlink", "access", "rename"}
"""Calls of arm32 that arm64 has only with a directory."""


def entries(table: str, architecture: str) -> dict[int, int]:
    section = re.split(r"#(?:if|elif|else|endif).*", HEADER.read_text().split("clang-format off")[1])
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
