"""`python -m tests.vm.table [KERNEL...] [--load-only]`: checks every gadget (check.py) on this machine's kernel and on
Debian's, and writes docs/kernels.json, from which the table in docs/gadgets/README.md is made.

A kernel is `here` or one of Debian's suites (kernels.py); without any, all are. The trap: a kernel that cannot be had
or breaks keeps what the file said of it, with the date on which that was found.
"""

import json
import shlex
import subprocess
import sys
import time
from typing import Any

from kubectl_gadget.cli import docs
from tests.vm import kernels, machine

FILE = docs.DOCS / "kernels.json"
SECONDS = 5400
CHECK = (sys.executable, "-m", "tests.vm.check")


def check(kernel: str, *flags: str) -> dict[str, Any]:
    """What check.py found there. Raises NoMachineError, TimeoutError, or ValueError when it printed nothing of use."""
    if kernel == "here":
        command = [*CHECK, *flags]
        text = subprocess.run(command, cwd=machine.PROJECT, stdout=subprocess.PIPE, text=True, check=True).stdout
    else:
        run = machine.run(
            f"{shlex.join([*CHECK, *flags])} >/tmp/found; cat /tmp/found >/dev/ttyS1", SECONDS, kernels.kernel(kernel)
        )
        text = run.result
        sys.stderr.write(run.console)
    found: dict[str, Any] = json.loads(text)
    return found | {"date": time.strftime("%Y-%m-%d")}


def main() -> None:
    """Checks those that are named, or all."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    failed = []
    flags = [word for word in sys.argv[1:] if word.startswith("-")]
    for kernel in [word for word in sys.argv[1:] if word not in flags] or ["here", *kernels.SUITES]:
        try:
            known[kernel] = check(kernel, *flags)
        except (machine.NoMachineError, TimeoutError, ValueError, subprocess.CalledProcessError) as error:
            failed.append(f"{kernel}: {error}")
            continue
        FILE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        docs.write()
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
