"""libbpf on a machine that does not have it, for `--local`: from the payload that the client carries."""

import subprocess
import sys

import pytest

WITHOUT_LIBBPF = """
import ctypes
load, mapped = ctypes.CDLL, []
def without(name, *words, **named):
    # As on a machine without libbpf, until a library of this soname was mapped from memory.
    if name == "libbpf.so.1" and not mapped:
        raise OSError("libbpf.so.1: no such file")
    found = load(name, *words, **named)
    if name and name.startswith("/proc/self/fd/"):
        mapped.append(name)
    return found
ctypes.CDLL = without
from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.pod import own_files
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", WITHOUT_LIBBPF + program], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.compiled
def test_a_machine_without_libbpf_uses_that_of_the_clients_payload() -> None:
    assert "/proc/self/fd/" in run("libbpf.load(); print(mapped)")


def test_without_a_payload_the_error_names_the_package() -> None:
    lost = "def read(path): raise FileNotFoundError(path)\nown_files.read = read\n"
    said = run(lost + "try:\n    libbpf.load()\nexcept Exception as error:\n    print(error, error.remedy)")
    assert "libbpf.so.1 cannot be loaded: libbpf.so.1: no such file" in said
    assert "apt-get install libbpf1" in said
