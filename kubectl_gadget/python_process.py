"""Commands that run a module of this package in a process of its own.

The trap: in the self-contained binary (release/binary.py), `sys.executable` is not Python but the program itself.
"""

import sys
from pathlib import Path

_BARE = """import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
MODULE = "--module"
"""The first argument with which the self-contained binary runs a module."""


def is_self_contained() -> bool:
    """Returns whether this is the self-contained binary, which has no Python interpreter for other programs."""
    return bool(getattr(sys, "frozen", False))


def module_command(module: str, *arguments: str, isolated: bool = True, bare: bool = False) -> list[str]:
    """Returns the command that runs `module`. `isolated`: the environment cannot change what it imports. `bare`: it
    needs no other package than this one, so Python's `site` is not run, which takes up to 30 ms."""
    if is_self_contained():
        return [sys.executable, MODULE, module, *arguments]
    if bare:
        return [sys.executable, "-I", "-S", "-c", _BARE, str(Path(__file__).parent.parent), module, *arguments]
    return [sys.executable, "-I" if isolated else "-P", "-m", module, *arguments]
