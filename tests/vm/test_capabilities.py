"""A pod's capabilities on Debian's kernel, which denies perf_event_open() without CAP_SYS_ADMIN.

This depends on a sysctl that only Debian has; with another value of it nothing would be tested.
"""

import sys
from collections.abc import Callable

import pytest

from tests.vm import machine
from tests.vm.results import results

SECONDS = 900
POD = "-all,+bpf,+perfmon,+sys_ptrace"
TESTS = "tests/bpf/test_raw_syscalls.py tests/agent/bpf/test_syscall_programs.py"

SCRIPT = f"""
sysctl -n kernel.perf_event_paranoid >/dev/ttyS1
as_pod="setpriv --bounding-set={POD} --inh-caps=-all --no-new-privs"
$as_pod {sys.executable} -m kubectl_gadget.agent probe >/dev/ttyS1
echo >/dev/ttyS1
$as_pod {sys.executable} -m pytest -q -p no:cacheprovider --junitxml=/tmp/results.xml {TESTS}
cat /tmp/results.xml >/dev/ttyS1
"""


@pytest.mark.vm
@pytest.mark.usefixtures("catalogue_built")
@pytest.mark.timeout(0)
def test_gadgets_follow_system_calls_with_the_capabilities_of_a_pod(
    record_property: Callable[[str, object], None],
) -> None:
    try:
        run = machine.run(SCRIPT, SECONDS)
    except machine.NoMachineError as reason:
        pytest.skip(str(reason))
    paranoid, _, rest = run.result.partition("\n")
    assert int(paranoid) > 2, run.console
    hello, _, xml = rest.partition("<?xml")
    assert '"problems": []' in hello, hello
    assert xml, f"pytest ended without results in the virtual machine:\n{run.console}"
    count = results("<?xml" + xml, "with a pod's capabilities", record_property)
    assert count["failures"] == count["errors"] == 0, run.console
    assert count["tests"] - count["skipped"] >= 10, run.console
