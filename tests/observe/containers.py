"""Containers whose program does something forbidden as its very first act."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kubectl_gadget.demo.pods import DemoPods

FIRST_ACTS = int(os.environ.get("FIRST_ACTS", "5"))
"""How many containers do it."""
_SOURCE = Path(__file__).parent / "programs" / "first_act.c"


def first_act(pods: DemoPods) -> None:
    """Gives all containers /bin/first-act, which opens /forbidden, and that file."""
    if os.uname().machine != "x86_64":
        pytest.skip("the program is written for x86-64")
    if not shutil.which("gcc"):
        pytest.skip("there is no C compiler")
    (pods.image_root / "forbidden").write_text("forbidden")
    program = pods.image_root / "bin" / "first-act"
    subprocess.run(["gcc", "-static", "-nostdlib", "-O2", "-o", program, _SOURCE], check=True)
