"""Programs of tests/agent/programs, compiled in the ways that programs of containers are."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
OF_BPF = Path(__file__).parents[1] / "bpf" / "programs"
COMPILED = "GADGET_TEST_OBJECTS"
"""Environment variable: a folder with what tests compile, for a machine without clang, or an emulated one."""
WAYS = {
    "pie": ["-fPIE", "-pie"],
    "no-pie": ["-fno-PIE", "-no-pie"],
    "static": ["-static"],
    "static-pie": ["-static-pie"],
}


_FRAMES = ("-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-fcf-protection=none")
RACER = (OF_BPF / "racer.c", "-O2", "-static", "-pthread")
INT80 = (OF_BPF / "int80.c", "-O1", "-fPIC", "-shared", "-fomit-frame-pointer")
PROBED = (OF_BPF / "probed.c", "-O1", "-Wl,--build-id")
_OFTEN = (
    *(RACER, INT80, PROBED, PROBED[:2], (PROGRAMS / "locker.c", *_FRAMES, *WAYS["static"])),
    *((PROGRAMS / f"{name}.c", *_FRAMES, *options) for name in ("burner", "leaker") for options in WAYS.values()),
)
"""What tests in emulated machines compile, where gcc takes seconds."""


def compile_burner(target: Path, *options: str, program: str = "burner") -> Path:
    """burner.c or another program, with frame pointers."""
    return compile_c(target, PROGRAMS / f"{program}.c", *_FRAMES, *(options or WAYS["pie"]))


def compile_c(target: Path, source: Path, *options: str) -> Path:
    """Compiled once for all tests, or before, into $GADGET_TEST_OBJECTS."""
    made = Path(os.environ.get(COMPILED, "/nowhere")) / _key(source, options)
    if made.exists():
        target.write_bytes(made.read_bytes())
    elif shutil.which("gcc"):
        target.write_bytes(_compiled(source, options))
    else:
        pytest.skip("there is no C compiler")
    target.chmod(0o755)
    return target


def compile_often_used(folder: Path) -> None:
    """Compiles the programs for machines that have this folder as $GADGET_TEST_OBJECTS."""
    for source, *options in _OFTEN:
        target = folder / _key(source, options)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(_compiled(source, tuple(options)))
        os.replace(file.name, target)  # machines may be reading the one from before


def _key(source: Path, options: Sequence[str]) -> str:
    """The name of a compiled program, which changes with its source and the options."""
    content = b"\0".join([source.read_bytes(), *map(str.encode, options)])
    return f"{source.stem}-{hashlib.sha256(content).hexdigest()[:16]}"


def addresses(program: Path) -> dict[str, int]:
    """Of the symbols in a program's file, as nm prints them."""
    return _addresses(program.read_bytes())


@cache  # nm takes longer than most tests that ask it
def _addresses(content: bytes) -> dict[str, int]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        lines = subprocess.run(["nm", file.name], check=True, capture_output=True, text=True).stdout.splitlines()
    return {line.split()[2]: int(line.split()[0], 16) for line in lines if len(line.split()) == 3}


def strip_as_fedora(program: Path) -> None:
    """Strips it as find-debuginfo does: functions that .dynsym lacks are left, packed in .gnu_debugdata."""
    dynamic, full, mini = (program.with_name(f"{program.name}.{end}") for end in ("dynsyms", "debug", "mini"))
    run = partial(subprocess.run, check=True)
    exported = _nm("-D", "--format=posix", "--defined-only", program)
    functions = [line for line in _nm("--format=posix", "--defined-only", program) if line.split()[1] in "TtD"]
    kept = {line.split()[0] for line in functions} - {line.split()[0] for line in exported}
    dynamic.write_text("".join(f"{name}\n" for name in sorted(kept)))
    run(["objcopy", "--only-keep-debug", program, full])
    run(["objcopy", "-S", "--remove-section", ".comment", f"--keep-symbols={dynamic}", full, mini])
    run(["strip", program])
    run(["xz", "--force", mini])
    run(["objcopy", "--add-section", f".gnu_debugdata={mini}.xz", program])


def _nm(*arguments: "str | Path") -> list[str]:
    return subprocess.run(["nm", *arguments], check=True, capture_output=True, text=True).stdout.splitlines()


@cache
def _compiled(source: Path, options: tuple[str, ...]) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run(["gcc", *options, source, "-o", file.name], check=True)
        return Path(file.name).read_bytes()
