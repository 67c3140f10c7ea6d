"""tests/agent/programs/burner.c, compiled in the ways that programs of containers are."""

import subprocess
from pathlib import Path

PROGRAM = Path(__file__).parent / "programs" / "burner.c"
WAYS = {
    "pie": ["-fPIE", "-pie"],
    "no-pie": ["-fno-PIE", "-no-pie"],
    "static": ["-static"],
    "static-pie": ["-static-pie"],
}


def compile_burner(target: Path, *options: str) -> Path:
    """The program, with frame pointers."""
    frames = ["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-fcf-protection=none"]
    command = ["gcc", *frames, *(options or WAYS["pie"]), str(PROGRAM), "-o", str(target)]
    subprocess.run(command, check=True)
    return target
