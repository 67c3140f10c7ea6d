"""Compiles the modules that each session of an agent imports, for its payload. On a node that would take 0.2 s of CPU
time, and a pod on demand has only one session.

zipimport prefers them to the sources beside them, and ignores them where Python has another version than that of this
build. So the sources stay in the payload. The trap: the columns of instructions would make them a third larger,
and an interpreter leaves them out only if it was started so (-X no_debug_ranges).
"""

import marshal
import subprocess
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path

from kubectl_gadget.errors import GadgetError

_IMPORTED = (
    "kubectl_gadget.agent.__main__",
    "kubectl_gadget.agent.kernel_types.subset",
    "kubectl_gadget.agent.session.session",
    "kubectl_gadget.agent.sources.stream",
)
"""What sessions import while they run, and all that these import."""
_HEAD = MAGIC_NUMBER + bytes([1, *bytes(11)])
"""Of a module that is used without being compared with its source: the payload's hash covers both."""
_PROGRAM = """
import importlib, marshal, os, sys
folder, *names = sys.argv[1:]
sys.path.insert(0, folder)
for name in names:
    importlib.import_module(name)
found = {}
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] == "kubectl_gadget":
        path = os.path.relpath(module.__file__, folder)
        with open(module.__file__, "rb") as file:
            found[path + "c"] = marshal.dumps(compile(file.read(), path, "exec", dont_inherit=True, optimize=2))
sys.stdout.buffer.write(marshal.dumps(found))
"""


def compiled_modules(package: Path) -> dict[str, bytes]:
    """Returns the files' contents by path, such as agent/session/session.pyc. `package` is the folder kubectl_gadget.
    Raises GadgetError when one cannot be imported."""
    words = [sys.executable, "-I", "-S", "-B", "-X", "no_debug_ranges", "-c", _PROGRAM, str(package.parent), *_IMPORTED]
    run = subprocess.run(words, capture_output=True, check=False)
    if run.returncode:
        raise GadgetError(f"the agent's modules cannot be compiled:\n{run.stderr.decode(errors='replace')}")
    found: dict[str, bytes] = marshal.loads(run.stdout)
    return {path.removeprefix(f"{package.name}/"): _HEAD + code for path, code in found.items()}
