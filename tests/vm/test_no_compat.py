"""A kernel that was booted without system calls of 32-bit programs: their copies of programs are left out.

The trap: the kernel ignores parameters that it does not know, so the program for 64-bit calls is tried as well.
"""

import json
import sys
from dataclasses import replace

import pytest

from tests.vm import kernels, machine

SECONDS = 900
ASKED = "from kubectl_gadget.agent.bpf import compat_programs; print(compat_programs.can_run())"
SCRIPT = f"""
{sys.executable} -c '{ASKED}' >/dev/ttyS1
{sys.executable} -m tests.vm.check trace_open >/dev/ttyS1
"""


@pytest.mark.vm
@pytest.mark.usefixtures("catalogue_built")
@pytest.mark.timeout(0)
def test_a_kernel_that_was_booted_without_32_bit_calls_gets_no_programs_for_them() -> None:
    try:
        kernel = replace(kernels.kernel("trixie"), parameters="ia32_emulation=off")
        run = machine.run(SCRIPT, SECONDS, kernel)
    except machine.NoMachineError as reason:
        pytest.skip(str(reason))
    can_run, _, found = run.result.partition("\n")
    assert can_run == "False", run.console
    assert json.loads(found)["gadgets"]["trace_open"]["count"] == "passed", run.console
