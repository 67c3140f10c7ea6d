"""Programs of tests/agent/programs, compiled in the ways that programs of containers are."""

import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
WAYS = {
    "pie": ["-fPIE", "-pie"],
    "no-pie": ["-fno-PIE", "-no-pie"],
    "static": ["-static"],
    "static-pie": ["-static-pie"],
}


def compile_burner(target: Path, *options: str, program: str = "burner") -> Path:
    """burner.c or another program, with frame pointers."""
    frames = ["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-fcf-protection=none"]
    command = ["gcc", *frames, *(options or WAYS["pie"]), str(PROGRAMS / f"{program}.c"), "-o", str(target)]
    if not shutil.which(command[0]):
        pytest.skip("there is no C compiler")
    subprocess.run(command, check=True)
    return target
