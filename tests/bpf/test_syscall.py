"""bpf/include/gadget/syscall.h: where kernels before 5.15 keep a system call's arguments."""

import ctypes
import os
from pathlib import Path

import pytest

from kubectl_gadget.gadgets.build import build_gadget
from kubectl_gadget.gadgets.compiler import Inputs
from tests.bpf import deeds
from tests.bpf.tracer import MACHINE, Tracer

PROGRAMS = Path(__file__).parent / "programs"


@pytest.mark.bpf
def test_the_stack_and_the_helper_lead_to_the_same_registers(tmp_path: Path) -> None:
    source = PROGRAMS / "registers.bpf.c"
    build_gadget(PROGRAMS / "registers.yaml", source, tmp_path, [MACHINE], Inputs(tmp_path))
    text = ctypes.create_string_buffer(b"/etc/hostname")
    with Tracer("registers", built=tmp_path, pid=os.getpid()) as tracer:
        deeds.openat(ctypes.addressof(text), os.O_RDONLY)
        (record,) = tracer.records()
    assert record["by_helper"] == record["on_stack"] != 0
    assert record["path_by_helper"] == record["path_on_stack"] == ctypes.addressof(text)
