"""Tests that send signals also work where the tests run in the background."""

import signal
import subprocess
import sys

import pytest

CODE = """
import os, signal, subprocess, sys
number = signal.Signals[sys.argv[1]]
signal.signal(number, signal.SIG_IGN)
from tests.signals import set_defaults_for_children
set_defaults_for_children()
os.kill(os.getpid(), number)  # ignored, as before
code = f"import os; os.kill(os.getpid(), {number:d})"
child = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
sys.exit(child.returncode != -number)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGQUIT", "SIGHUP"])
def test_what_is_ignored_here_ends_the_programs_that_tests_start(name: str) -> None:
    assert subprocess.run([sys.executable, "-c", CODE, name], check=False).returncode == 0


def test_these_tests_can_interrupt_a_program() -> None:
    """As conftest.py has prepared it, also under `nohup make test &`."""
    code = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGINT
