"""A pod's capabilities on Debian's kernel, which keeps perf_event_open() from who has no CAP_SYS_ADMIN.

The trap: the kernel refuses by a sysctl that is Debian's own; where it had another value nothing would be tested.
"""

import sys
from xml.etree import ElementTree

import pytest

from tests.vm import machine

SECONDS = 900
POD = "-all,+bpf,+perfmon,+sys_ptrace"
TESTS = "tests/bpf/test_raw_syscalls.py tests/agent/test_syscalls.py"

SCRIPT = f"""
sysctl -n kernel.perf_event_paranoid >/dev/ttyS1
as_pod="setpriv --bounding-set={POD} --inh-caps=-all --no-new-privs"
$as_pod {sys.executable} -m kubectl_gadget.agent probe >/dev/ttyS1
echo >/dev/ttyS1
$as_pod {sys.executable} -m pytest -q -p no:cacheprovider --junitxml=/tmp/results.xml {TESTS}
cat /tmp/results.xml >/dev/ttyS1
"""


@pytest.mark.vm
@pytest.mark.timeout(0)
def test_gadgets_follow_system_calls_with_the_capabilities_of_a_pod(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        run = machine.run(SCRIPT, SECONDS)
    except machine.NoMachineError as reason:
        pytest.skip(str(reason))
    paranoid, _, rest = run.result.partition("\n")
    assert int(paranoid) > 2, run.console
    hello, _, xml = rest.partition("<?xml")
    assert '"syscalls": "tp_btf"' in hello, hello
    assert '"problems": []' in hello, hello
    assert xml, f"pytest ended without results in the virtual machine:\n{run.console}"
    suite = ElementTree.fromstring("<?xml" + xml).find("testsuite")
    assert suite is not None, run.console
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    with capsys.disabled():
        sys.stdout.write(f"[in the virtual machine: {count}] ")
    assert count["failures"] == count["errors"] == 0, run.console
    assert count["tests"] - count["skipped"] >= 10, run.console
