"""The start of the self-contained binary, which needs no Python on the machine.

It runs the command line, completion when it is called by that name, or, for a process of its own, one module of the
package: see kubectl_gadget/python_process.py.
"""

import runpy
import sys
from pathlib import Path

from kubectl_gadget.python_process import MODULE


def main() -> None:
    if sys.argv[1:2] == [MODULE]:
        sys.argv = sys.argv[2:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif Path(sys.argv[0]).name.startswith("kubectl_complete"):
        from kubectl_gadget.cli.complete import main as complete

        complete()
    else:
        from kubectl_gadget.cli.main import main as command_line

        command_line()


if __name__ == "__main__":
    main()
