"""Commands that run a module of this package in a process of its own.

The trap: in the self-contained binary (release/binary.py), `sys.executable` is not Python but the program itself.
"""

import sys

MODULE = "--module"
"""The first argument with which the self-contained binary runs a module."""


def is_self_contained() -> bool:
    """Returns whether this is the self-contained binary, which has no Python interpreter for other programs."""
    return bool(getattr(sys, "frozen", False))


def module_command(module: str, *arguments: str, isolated: bool = True) -> list[str]:
    """Returns the command that runs `module`. `isolated`: the environment cannot change what it imports."""
    if is_self_contained():
        return [sys.executable, MODULE, module, *arguments]
    return [sys.executable, "-I" if isolated else "-P", "-m", module, *arguments]
