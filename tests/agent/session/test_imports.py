"""What a session imports before it says HELLO: each run waits for that."""

import subprocess
import sys
from pathlib import Path

import kubectl_gadget

SLOW = {"dataclasses", "inspect", "shutil", "platform", "hashlib", "zipfile", "tempfile", "subprocess", "logging"}
OF_SYMBOLS = {"lzma", "kubectl_gadget.agent.symbols.user_symbols", "kubectl_gadget.agent.symbols.uprobes"}

OF_FEW_SESSIONS = {
    "kubectl_gadget.agent.sources.client_tables",
    "kubectl_gadget.agent.kernel.hooks",
    "kubectl_gadget.agent.sources.samplers",
}


def test_a_session_imports_no_slow_module_that_it_does_not_need() -> None:
    imported = imported_with("kubectl_gadget.agent.session.session")
    assert "kubectl_gadget.agent.sources.source" in imported
    assert not imported & (SLOW | OF_SYMBOLS | OF_FEW_SESSIONS)


def test_a_gadget_without_stacks_and_uprobes_needs_nothing_that_reads_symbols() -> None:
    assert not imported_with("kubectl_gadget.agent.sources.stream") & (SLOW | OF_SYMBOLS | OF_FEW_SESSIONS)


def imported_with(module: str) -> set[str]:
    """All modules of a new process that has imported this one."""
    program = f"import sys; sys.path.append(sys.argv[1]); import {module}; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", program, str(Path(kubectl_gadget.__file__).parent.parent)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
