"""Devices that every program may use and that keep nothing, so that their use says nothing about the program."""

USUAL_DEVICES = frozenset(
    f"/dev/{name}"
    for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "stdin", "stdout", "stderr")
)
