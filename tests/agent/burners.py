"""Programs of tests/agent/programs, compiled in the ways that programs of containers are."""

import shutil
import subprocess
import tempfile
from functools import cache
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
    return compile_c(target, PROGRAMS / f"{program}.c", *frames, *(options or WAYS["pie"]))


def compile_c(target: Path, source: Path, *options: str) -> Path:
    """Compiled once for all tests: in a virtual machine that takes seconds."""
    if not shutil.which("gcc"):
        pytest.skip("there is no C compiler")
    target.write_bytes(_compiled(source, options))
    target.chmod(0o755)
    return target


@cache
def _compiled(source: Path, options: tuple[str, ...]) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run(["gcc", *options, source, "-o", file.name], check=True)
        return Path(file.name).read_bytes()
