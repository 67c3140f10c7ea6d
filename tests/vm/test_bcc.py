"""bcc on Debian's kernel 6.12 with its headers: a stock tool that counts, and the user's own script and C file.

There, bcc compiles on an emulated processor there, so each of them takes a minute.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

from bench.vm import headers
from tests.vm import machine

SECONDS = 1800
EXECS = 7
RUN = "kubectl-gadget bcc --local"

OWN = """
from bcc import BPF
program = BPF(text="int kprobe__do_nanosleep(void *ctx) { return 0; }")
print("loaded by", __import__("sys").argv[1], flush=True)
"""
C = r"""
TRACEPOINT_PROBE(syscalls, sys_enter_getppid) { bpf_trace_printk("asked\n"); return 0; }
"""


def script(headers: Path) -> str:
    """Return a shell script that writes each command's lines to the result port, after its name. The tool counts once
    it has reported that it does. A run that a shell starts with & inherits an ignored SIGINT, so SIGTERM ends it."""
    gadget = f"{Path(sys.executable).parent}/{RUN}"
    return f"""
export BCC_KERNEL_SOURCE={headers}
mount -t debugfs nodev /sys/kernel/debug 2>/dev/null
cat >/tmp/own.py <<'END'
{OWN}
END
cat >/tmp/own.c <<'END'
{C}
END
until_has() {{ n=0; until grep -q "$1" "$2" || [ $n -gt 600 ]; do sleep 1; n=$((n+1)); done; }}
{gadget} --timeout 900s execsnoop -n counted >/tmp/execs 2>/tmp/execs.err & tool=$!
until_has COMM /tmp/execs
cp /bin/true /tmp/counted
for i in $(seq {EXECS}); do /tmp/counted $i; done
until_has 'counted {EXECS}' /tmp/execs
kill $tool; wait $tool
sed 's/^/execsnoop: /' /tmp/execs /tmp/execs.err >/dev/ttyS1
{gadget} /tmp/own.py me 2>&1 | sed 's/^/own: /' >/dev/ttyS1
{gadget} --timeout 900s /tmp/own.c >/tmp/c 2>&1 & tool=$!
n=0
until grep -q asked /tmp/c || [ $n -gt 600 ]; do
sh -c : # which asks for its parent when it starts; a Python would take more of the processor than the compiler leaves
sleep 1
n=$((n+1))
done
kill $tool; wait $tool
sed 's/^/c: /' /tmp/c | head -5 >/dev/ttyS1
"""


@pytest.mark.vm
@pytest.mark.usefixtures("catalogue_built")
@pytest.mark.timeout(0)
def test_a_stock_tool_counts_and_own_programs_run_where_the_headers_are() -> None:
    if importlib.util.find_spec("bcc") is None or not Path("/usr/sbin/execsnoop-bpfcc").exists():
        pytest.skip("bcc is not installed: apt-get install bpfcc-tools python3-bpfcc")
    try:
        run = machine.run(script(headers()), SECONDS)
    except machine.NoMachineError as reason:
        pytest.skip(str(reason))
    lines = run.result.splitlines()
    counted = [line for line in lines if line.startswith("execsnoop: counted") and "/tmp/counted" in line]
    assert [line.split()[-1] for line in counted] == [str(number + 1) for number in range(EXECS)], (
        run.result + run.console
    )
    assert "own: loaded by me" in lines, run.result + run.console
    assert any(line.startswith("c: ") and line.endswith("asked") for line in lines), run.result + run.console
