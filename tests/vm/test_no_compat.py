"""A kernel that was booted without system calls of 32-bit programs: their copies of programs are left out.

The kernel ignores parameters that it does not know, so the program for 64-bit calls is tried as well.
"""

import sys
from dataclasses import replace

import pytest

from tests.vm import kernels, machine

SECONDS = 900
OPENS = 7
ASKED = f"""
import os
from kubectl_gadget.agent.bpf import syscall_programs
from kubectl_gadget.agent.containers.tracking import Containers
from tests.bpf.tracer import Tracer
from tests.vm.check import attached

print(syscall_programs.can_run_32_bit())
with attached("trace_open", Containers()):
    print("attached")
with Tracer("trace_open", pid=os.getpid()) as tracer:
    for _ in range({OPENS}):
        os.close(os.open("/etc/passwd", os.O_RDONLY))
    print(len(tracer.records()))
"""
SCRIPT = f"{sys.executable} -c '{ASKED}' >/dev/ttyS1"


@pytest.mark.vm
@pytest.mark.usefixtures("catalogue_built")
@pytest.mark.timeout(0)
def test_a_kernel_that_was_booted_without_32_bit_calls_gets_no_programs_for_them() -> None:
    try:
        kernel = replace(kernels.kernel("trixie"), parameters="ia32_emulation=off")
        run = machine.run(SCRIPT, SECONDS, kernel)
    except machine.NoMachineError as reason:
        pytest.skip(str(reason))
    assert run.result.splitlines() == ["False", "attached", str(OPENS)], run.result + run.console
