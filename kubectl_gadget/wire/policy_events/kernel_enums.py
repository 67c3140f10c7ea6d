"""Names of the Linux constants that arguments of hooks contain (kernel_enums.txt), for code that imports only the
standard library.

The trap: readers of security events are strict. A value of one of their enums uses the name in that enum, which is not
always the kernel's, and a number where the enum has no name (wire/policy_events/strict_names.py). In an agent,
this module may be in a zip, so its loader reads the table.
"""

from typing import Any

_loader: Any = __spec__.loader


def _read() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in _loader.get_data(__file__.rpartition(".")[0] + ".txt").decode().splitlines():
        word, _, group = line.partition(" ")
        if word == "group":
            names = found[group] = []
        elif word != "#":
            names.append("" if word == "-" else word)
    return found


_GROUPS = _read()
BPF_COMMANDS = _GROUPS["BPF_COMMANDS"]
"""Commands of bpf(2), without BPF_."""
BPF_PROGRAM_TYPES = _GROUPS["BPF_PROGRAM_TYPES"]
"""Without BPF_PROG_TYPE_."""
BPF_MAP_TYPES = _GROUPS["BPF_MAP_TYPES"]
"""Without BPF_MAP_TYPE_."""
CAPABILITIES = _GROUPS["CAPABILITIES"]
"""Without CAP_."""
TCP_STATES = _GROUPS["TCP_STATES"]
"""Without TCP_; from 1."""
