"""libelf and libbpf load with the stub in place of libzstd, and what libelf asks of it fails as it expects."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_gadget.gadgets import pack_payload
from kubectl_gadget.gadgets.load import ARCHITECTURES, BUILT
from kubectl_gadget.gadgets.pack_payload import PACKAGES

LOAD = """
import ctypes, sys
libraries = [ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL) for path in sys.argv[1:]]
"""
READ_COMPRESSED = """
libelf = libraries[-2]
data = sys.stdin.buffer.read()
libelf.elf_memory.restype = libelf.elf_strptr.restype = ctypes.c_void_p
libelf.elf_version(1)
print(libelf.elf_strptr(ctypes.c_void_p(libelf.elf_memory(data, len(data))), 1, 1))
"""


@pytest.mark.compiled
@pytest.mark.skipif(sys.platform != "linux", reason="the libraries are Linux's")
def test_libbpf_loads_and_a_compressed_section_is_refused(tmp_path: Path) -> None:
    machine = os.uname().machine
    stub = tmp_path / pack_payload.SONAME
    stub.write_bytes(pack_payload.make(machine))
    words = [sys.executable, "-c", LOAD + READ_COMPRESSED, str(stub)]
    words += [str(BUILT / "libraries" / machine / soname) for soname in PACKAGES]
    done = subprocess.run(words, input=_with_compressed_names(), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"None\n"), done.stderr


def _with_compressed_names() -> bytes:
    """An ELF file whose section of names claims to be compressed with zstd."""
    content = struct.pack("<IIQQ", 2, 0, 64, 1) + b"(\xb5/\xfd"
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 1, 62, 1, 0, 0, 64 + len(content), 0, 64, 0, 0, 64, 2, 1
    )
    section = struct.pack("<IIQQQQIIQQ", 0, 3, 0x800, 0, 64, len(content), 0, 0, 1, 0)
    return header + content + bytes(64) + section


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_the_loader_writes_to_has_pages_of_its_own_with_pages_of_any_size(machine: str) -> None:
    """arm64 has pages of 4, 16 or 64 KiB."""
    elf = pack_payload.make(machine)
    segments = [struct.unpack_from("<IIQQQQQQ", elf, 64 + number * 56) for number in range(4)]
    code, data = (one for one in segments if one[0] == 1)
    for page in (1 << 12, 1 << 14, 1 << 16):
        assert (data[3] - data[2]) % page == 0
        assert (code[3] + code[6] - 1) // page < data[3] // page
    assert data[2] + data[5] == len(elf)
