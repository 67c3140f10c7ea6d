"""Commands that run a module of this package in a process of its own, and the environment of this process.

The trap: in the self-contained binary (release/binary.py), `sys.executable` is not Python but the program itself.
"""

import os
import sys
from contextlib import suppress

_AGENT = """import sys
sys.path.append(sys.argv.pop(1))
from kubectl_gadget.agent.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
MODULE = "--module"
"""The first argument with which the self-contained binary runs a module."""

_THREADS = "OPENBLAS_NUM_THREADS"
_added: set[str] = set()


def keep_numpy_single() -> None:
    """Call it before numpy is imported. Its linear algebra, which nothing here uses, starts a thread for each
    processor: a third of the time that the import takes."""
    if _THREADS not in os.environ:
        os.environ[_THREADS] = "1"
        _added.add(_THREADS)


def give_memory_back() -> None:
    """Gives memory that was freed back to the system. glibc keeps it after a flood, since what is still in use lies
    between. Takes some ten milliseconds; does nothing with other C libraries."""
    import ctypes  # every start of the program would wait for it

    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def given_environment() -> dict[str, str]:
    """The environment that the user gave this process, for the user's own commands."""
    return {name: value for name, value in os.environ.items() if name not in _added}


def is_self_contained() -> bool:
    """Returns whether this is the self-contained binary, which has no Python interpreter for other programs."""
    return bool(getattr(sys, "frozen", False))


def module_command(module: str, *arguments: str, isolated: bool = True) -> list[str]:
    """Returns the command that runs `module`. `isolated`: the environment cannot change what it imports."""
    if is_self_contained():
        return [sys.executable, MODULE, module, *arguments]
    return [sys.executable, "-I" if isolated else "-P", "-m", module, *arguments]


def agent_command(*arguments: str) -> list[str]:
    """Returns the command that runs the agent here. It needs no other package than this one, so Python's `site` is not
    run, which takes up to 30 ms."""
    if is_self_contained():
        return module_command("kubectl_gadget.agent", *arguments)
    return [sys.executable, "-I", "-S", "-c", _AGENT, os.path.dirname(os.path.dirname(__file__)), *arguments]
