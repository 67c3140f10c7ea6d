"""`python -m tests.vm.table [KERNEL...] [--load-only] [--only=GADGET,TEST,...]`: checks every gadget and whole agents,
or some of it (check.py), on this machine's kernel and on Debian's, and writes docs/kernels.json, from which the table
in docs/gadgets/README.md is made.

A kernel is `here`, one of Debian's suites (kernels.py) or `arm64`; without arguments, all are checked. A kernel that is
not available or fails keeps its earlier results in the file, with their date.
"""

import json
import shlex
import subprocess
import sys
import time
from typing import Any

from docs import reference
from tests.agent.burners import COMPILED
from tests.agent.conftest import compiled_objects
from tests.vm import arm64, kernels, machine
from tests.vm.check import WHOLE

FILE = reference.DOCS / "kernels.json"
SECONDS = 5400
CHECK = ("-m", "tests.vm.check")
ARM64 = "arm64"
ONLY = "--only="


def check(kernel: str, *flags: str) -> dict[str, Any]:
    """The results of check.py on that kernel. Raises NoMachineError, TimeoutError, or ValueError if it printed nothing
    usable."""
    if kernel == "here":
        command = [sys.executable, *CHECK, *flags]
        text = subprocess.run(command, cwd=machine.PROJECT, stdout=subprocess.PIPE, text=True, check=True).stdout
    else:
        booted = arm64.kernel() if kernel == ARM64 else kernels.kernel(kernel)
        command = [booted.python, *CHECK, *flags]
        if kernel == ARM64:
            command = ["env", f"{COMPILED}={compiled_objects(arm64.ARCHITECTURE)}", *command]
        run = machine.run(f"{shlex.join(command)} >/tmp/found; cat /tmp/found >/dev/ttyS1", SECONDS, booted)
        text = run.result
        sys.stderr.write(run.console)
    found: dict[str, Any] = json.loads(text)
    return found | {"date": time.strftime("%Y-%m-%d")}


def main() -> None:
    """Checks the named kernels, or all."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    failed = []
    words = [word for word in sys.argv[1:] if not word.startswith(ONLY)]
    only = [name for word in sys.argv[1:] if word.startswith(ONLY) for name in word.removeprefix(ONLY).split(",")]
    flags = [word for word in words if word.startswith("-")]
    for kernel in [word for word in words if word not in flags] or ["here", *kernels.SUITES, ARM64]:
        try:
            found = check(kernel, *flags, *only)
        except (machine.NoMachineError, TimeoutError, ValueError, subprocess.CalledProcessError) as error:
            failed.append(f"{kernel}: {error}")
            continue
        earlier = known.get(kernel, {}) if only else {}
        known[kernel] = found | {part: earlier.get(part, {}) | found[part] for part in ("gadgets", "tests")}
        known[kernel]["tests"] = {test: outcome for test, outcome in known[kernel]["tests"].items() if test in WHOLE}
        FILE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        reference.write()
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
