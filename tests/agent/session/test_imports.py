"""What a session imports before it says HELLO: each run waits for that."""

import subprocess
import sys
from pathlib import Path

import kubectl_gadget

SLOW = {"dataclasses", "inspect", "shutil", "platform", "hashlib", "zipfile", "tempfile", "subprocess", "logging"}


def test_a_session_imports_no_slow_module_that_it_does_not_need() -> None:
    program = "import sys; sys.path.append(sys.argv[1]); import kubectl_gadget.agent.session.session; "
    program += "print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", program, str(Path(kubectl_gadget.__file__).parent.parent)]
    imported = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "kubectl_gadget.agent.session.hello" in imported
    assert not imported & SLOW
