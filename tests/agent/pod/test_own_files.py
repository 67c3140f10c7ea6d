"""libbpf where the agent is installed, for `--local`: the installation's own, else the system's."""

import os
import subprocess
import sys

import pytest

OWN = f"built/libraries/{os.uname().machine}/libbpf-glibc.so.1"
LOAD = """
from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.pod import own_files
"""
WITHOUT = """
import ctypes
load = ctypes.CDLL
def without(name, *words, **named):
    if name and any(part in name for part in missing):
        raise OSError(f"{name}: no such file")
    return load(name, *words, **named)
ctypes.CDLL = without
"""
SAY_MAPPED = "print({line.split()[-1] for line in open('/proc/self/maps') if 'libbpf' in line})"


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.compiled
@pytest.mark.skipif(sys.platform != "linux", reason="libbpf is Linux's")
def test_an_installation_has_its_own_libbpf_and_needs_no_other() -> None:
    missing = "missing = ['libbpf.so.1', 'libelf', 'libz.so']" + WITHOUT
    said = run(missing + LOAD + "assert libbpf.load().call('libbpf_num_possible_cpus') > 0\n" + SAY_MAPPED)
    assert OWN in said
    assert said.count("libbpf") == 1


def test_without_any_the_error_names_the_package() -> None:
    said = run(
        "missing = ['libbpf']"
        + WITHOUT
        + LOAD
        + "try:\n    libbpf.load()\nexcept Exception as error:\n    print(error, error.remedy)"
    )
    assert "the system's cannot be loaded: libbpf.so.1: no such file" in said
    assert "apt-get install libbpf1" in said


@pytest.mark.compiled
@pytest.mark.skipif(sys.platform != "linux", reason="libbpf is Linux's")
def test_the_systems_libbpf_is_used_where_nothing_was_built() -> None:
    program = "missing = ['/libbpf-']" + WITHOUT + LOAD
    said = run(program + "try:\n    libbpf.load()\nexcept Exception as error:\n    print(error)\n" + SAY_MAPPED)
    assert "/libbpf-" not in said
    assert "libbpf.so.1" in said, "the system's, or the error that there is none"
